"""Jobs as messages."""

from __future__ import annotations

from sekisho.broker.policy import Policy
from sekisho.domain.job import Job
from sekisho.wire.v1 import JobView


def job_view(job: Job, policy: Policy, *, with_result: bool) -> JobView:
    """Return what may be shown of a job; its result is for its submitter."""
    return JobView(
        id=job.id,
        site=job.site,
        submitter=job.submitter,
        state=job.state.value,
        version=job.version,
        created_at=job.created_at,
        changed_at=job.changed_at or job.created_at,
        expires_at=job.expires_at,
        cancel_requested=job.cancel_requested,
        attention=job.attention.value if job.attention else None,
        result=job.result or None if with_result else None,
        received=job.received_at is not None,
        lost_by=job.lost_by,
        unguarded=policy.mint.unguarded(job.site),
        snapshots=job.snapshots,
    )
