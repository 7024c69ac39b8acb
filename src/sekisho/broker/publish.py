"""Snapshots of running jobs: the site replaces the last one, the submitter reads it.

The broker keeps one for each job, unread and bounded, for as long as it keeps the job. What is
shown of a job that has ended is its outcome; the last snapshot stays what was published on the way.
"""

from __future__ import annotations

from dataclasses import dataclass

from sekisho.broker.jobs import Jobs
from sekisho.broker.ports import Snapshots, Tenant
from sekisho.domain.clock import Clock
from sekisho.domain.errors import NotFound
from sekisho.domain.job import Job, Published, apply
from sekisho.wire.v1 import Publish, SnapshotView


@dataclass(frozen=True, slots=True)
class Publications:
    """What running jobs show of themselves."""

    jobs: Jobs
    snapshots: Snapshots
    clock: Clock

    def publish(self, site: str, job_id: str, message: Publish) -> Job:
        """Keep the snapshot of a job that runs at the site, in place of the one before.

        Raise StaleEpoch, or InvalidTransition for a job that does not run; then nothing is kept.
        """
        said = Published(at=self.clock.now(), epoch=message.epoch, instance=message.instance)
        tenant = Tenant(site=site)
        apply(self.jobs.get(job_id, tenant), said)
        self.snapshots.keep(job_id, message.snapshot)
        return self.jobs.change(job_id, tenant, lambda job: apply(job, said))

    def last(self, user: str, job_id: str) -> SnapshotView:
        """Return what the user's job published last; raise NotFound when there is nothing."""
        job = self.jobs.get(job_id, Tenant(submitter=user))
        snapshot = self.snapshots.last(job.id)
        if snapshot is None:
            raise NotFound("snapshot.not_found", job=job.id)
        return SnapshotView(number=job.snapshots, snapshot=snapshot)
