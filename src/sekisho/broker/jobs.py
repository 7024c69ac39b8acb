"""Look-ups of jobs, and the one way in which a job is changed: by compare-and-set, then telling.

Every service changes jobs through `Jobs.change`, so that each change of state is kept before it is
answered, wakes those who wait for it, and is one line of the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import structlog

from sekisho.broker.meter import Meter
from sekisho.broker.ports import JobFilter, JobStore, Tenant, Wakeups
from sekisho.domain.errors import Unavailable
from sekisho.domain.ids import check_job_id
from sekisho.domain.job import Event, Job, JobState, already, apply

_TRIES: Final = 100
_PAGE: Final = 200
#: States in which a site has the job and only its site, or a person, moves it.
HELD: Final = frozenset({JobState.ACCEPTED, JobState.RUNNING, JobState.RETURNING})
#: States in which no agent has the job.
WAITING: Final = frozenset({JobState.DRAFT, JobState.QUEUED, JobState.OFFERED})

log = structlog.get_logger()


def job_topic(job_id: str) -> str:
    """Return the topic that tells of every change of a job."""
    return f"job:{job_id}"


def end_topic(job_id: str) -> str:
    """Return the topic that tells of a job's end only."""
    return f"end:{job_id}"


def site_topic(site: str) -> str:
    """Return the topic that tells a site's agents to look again."""
    return f"site:{site}"


@dataclass(frozen=True, slots=True)
class Jobs:
    """The jobs of the broker."""

    store: JobStore
    wakeups: Wakeups
    meter: Meter

    def get(self, job_id: str, tenant: Tenant) -> Job:
        """Return the job when ``tenant`` may see it, else raise NotFound."""
        return self.store.get(check_job_id(job_id), tenant)

    def every(self, which: JobFilter) -> Iterator[Job]:
        """Return all jobs that ``which`` lists, newest first."""
        after = None
        while page := self.store.page(which, after=after, limit=_PAGE):
            yield from page
            after = page[-1].id

    def change(self, job_id: str, tenant: Tenant, decide: Callable[[Job], Job]) -> Job:
        """Keep what ``decide`` makes of the job as it is now; return the job as kept.

        ``decide`` is asked again when somebody else was faster; it returns its argument to change
        nothing, or raises.
        """
        return self.move(job_id, tenant, lambda job: [decide(job)])

    def move(self, job_id: str, tenant: Tenant, decide: Callable[[Job], Sequence[Job]]) -> Job:
        """As `change`, through all states that ``decide`` returns, kept as one change."""
        for _ in range(_TRIES):
            job = self.get(job_id, tenant)
            course = [state for state in decide(job) if state is not job]
            if not course:
                return job
            *passed, last = course
            if self.store.save(last, expected_version=job.version, passed=passed):
                for before, state in pairwise((job, *passed)):
                    self._noted(state, before)
                self.told(last, before=passed[-1] if passed else job)
                return last
        raise Unavailable("job.contended", job=job_id)

    def happened(self, job_id: str, tenant: Tenant, *events: Event) -> Job:
        """Apply ``events``, but those applied before (rule 4 of `sekisho.domain.job`)."""
        return self.move(job_id, tenant, lambda job: course_of(job, events))

    def told(self, job: Job, *, before: Job | None) -> None:
        """Tell the log, the meter and whoever waits that ``job`` is now as it is."""
        self._noted(job, before)
        cancel = job.cancel_requested and not (before and before.cancel_requested)
        if job.state is JobState.QUEUED or cancel:
            self.wakeups.notify(site_topic(job.site))
        self.wakeups.notify(job_topic(job.id))
        if job.state.terminal:
            self.wakeups.notify(end_topic(job.id))

    def _noted(self, job: Job, before: Job | None) -> None:
        if before is None or job.state is not before.state:
            self.meter.add("job_changes", state=job.state.value)
            log.info(
                "job_changed", job=job.id, epoch=job.epoch, site=job.site, state=job.state.value
            )


def course_of(job: Job, events: Iterable[Event]) -> list[Job]:
    """Return the states that ``events`` lead ``job`` through, but for those applied before."""
    course = []
    for event in events:
        if not already(job, event):
            job = apply(job, event)
            course.append(job)
    return course
