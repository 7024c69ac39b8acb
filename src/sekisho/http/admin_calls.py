"""What the operator's routes do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sekisho import __version__
from sekisho.broker.desk import Desk
from sekisho.broker.ports import JobFilter
from sekisho.domain.ids import check_site
from sekisho.http.call import Call
from sekisho.http.view import job_view
from sekisho.wire.v1 import BrokerStatus, Done, JobPage, JobView


@dataclass(frozen=True, slots=True)
class AdminCalls:
    """The operator's routes."""

    desk: Desk
    started_at: datetime
    reload: Callable[[], None]

    def status(self, _: Call) -> BrokerStatus:
        return status(self.desk, self.started_at)

    async def reread(self, _: Call) -> Done:
        """Reload in the event loop: certificates must not change below a handshake."""
        self.reload()
        return Done()

    def switch(self, call: Call) -> Done:
        message = call.message
        self.desk.sites.switch(
            check_site(call.id), disabled=message.disabled, command=message.command
        )
        return Done()

    def lost(self, call: Call) -> JobView:
        job = self.desk.sites.lost(call.id, call.message.by)
        return job_view(job, self.desk.policy.value, with_result=False)

    def page(self, call: Call) -> JobPage:
        query = call.query
        states = None if query.state is None else frozenset({query.state})
        which = JobFilter(site=query.site, states=states)
        jobs = self.desk.ports.store.jobs.page(which, after=query.after, limit=query.limit)
        more = jobs[-1].id if len(jobs) == query.limit else None
        policy = self.desk.policy.value
        return JobPage(jobs=[job_view(job, policy, with_result=False) for job in jobs], next=more)


def status(desk: Desk, started_at: datetime) -> BrokerStatus:
    """Return the broker's figures."""
    states: Counter[str] = Counter()
    for (_, state), number in desk.ports.store.ledger.counts().items():
        states[state.value] += number
    sites = desk.ports.store.directory.sites()
    return BrokerStatus(
        version=__version__,
        started_at=started_at,
        jobs=dict(sorted(states.items())),
        stored_bytes=desk.ports.store.ledger.usage().stored_bytes,
        free_bytes=desk.ports.blobs.free_bytes(),
        polling=desk.meter.get("polling"),
        unguarded=[s.id for s in sites if desk.policy.value.mint.unguarded(s.id)],
    )
