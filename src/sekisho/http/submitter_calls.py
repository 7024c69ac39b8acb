"""What the workflow side's routes do: translate between messages and `broker.submit`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sekisho.broker.desk import Desk
from sekisho.broker.jobs import end_topic, job_topic
from sekisho.broker.ports import JobFilter
from sekisho.domain.ids import check_job_id
from sekisho.domain.job import Job
from sekisho.http.call import Call, Created
from sekisho.http.longpoll import LongPoll
from sekisho.http.threads import Threads
from sekisho.http.view import job_view
from sekisho.wire.v1 import JobPage, JobView, SiteList, SnapshotView

#: A short job changes five times within some milliseconds: told in one answer, not in five.
SETTLE_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class SubmitterCalls:
    """The submitter's routes."""

    desk: Desk
    polls: LongPoll
    threads: Threads

    def submit(self, call: Call) -> JobView | Created:
        job, new = self.desk.submissions.submit(call.user, call.message)
        return Created(self._own(job)) if new else self._own(job)

    def open(self, call: Call) -> JobView | Created:
        job, new = self.desk.submissions.open(call.user, call.message)
        return Created(self._own(job)) if new else self._own(job)

    def page(self, call: Call) -> JobPage:
        query = call.query
        states = None if query.state is None else frozenset({query.state})
        which = JobFilter(site=query.site, states=states)
        jobs = self.desk.submissions.page(call.user, which, after=query.after, limit=query.limit)
        more = jobs[-1].id if len(jobs) == query.limit else None
        return JobPage(jobs=[self._own(job) for job in jobs], next=more)

    async def view(self, call: Call) -> JobView:
        """Answer when the job changes, or only when it ends, as was asked.

        What changes again at once is told as it is then.
        """
        job_id, known = check_job_id(call.id), call.query.version

        async def look() -> Job:
            return await self.threads.look(self.desk.submissions.view, call.user, job_id)

        def news(job: Job) -> bool:
            return job.version != known or job.state.terminal

        def ended(job: Job) -> bool:
            return job.state.terminal

        async def end_within(wait_s: float) -> Job:
            job = await self.polls.until(ended, look, topics=[end_topic(job_id)], wait_s=wait_s)
            return job if ended(job) else await look()

        wait_s = 0.0 if known is None else call.query.wait_s
        if call.query.end:
            return self._own(await end_within(wait_s))
        job = await self.polls.until(news, look, topics=[job_topic(job_id)], wait_s=wait_s)
        if wait_s > 0 and news(job) and not ended(job):
            job = await end_within(min(wait_s, SETTLE_SECONDS))
        return self._own(job)

    def snapshot(self, call: Call) -> SnapshotView:
        return self.desk.publications.last(call.user, check_job_id(call.id))

    def start(self, call: Call) -> JobView:
        return self._own(self.desk.submissions.start(call.user, call.id))

    def cancel(self, call: Call) -> JobView:
        return self._own(self.desk.submissions.cancel(call.user, call.id))

    def received(self, call: Call) -> JobView:
        return self._own(self.desk.submissions.received(call.user, call.id))

    def sites(self, call: Call) -> SiteList:
        return SiteList(sites=self.desk.sites.serving(call.user))

    def _own(self, job: Job) -> JobView:
        return job_view(job, self.desk.policy.value, with_result=True)
