"""What the client needs of the lane to a site. Synchronous; safe to share between threads.

Every method may be repeated with the same arguments and is then answered the same. Errors are those
of `sekisho.domain.errors`; a lane repeats what did not get through for as long as its patience
lasts, then raises Unavailable.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from sekisho.transfer.port import ChunkPort, FilePort
from sekisho.wire.v1 import JobPage, JobView, OpenDraft, SiteList, SnapshotView, SubmitJob


class Lane(Protocol):
    """One submitter's jobs."""

    def submit(self, job: SubmitJob) -> JobView:
        """Offer the job. Durable when it returns; the same id with other content is Conflict."""
        ...

    def open(self, draft: OpenDraft) -> JobView | None:
        """Offer a job whose request is not known yet, or None where a lane needs it first.

        `submit` it before `start`; its inputs may be sent meanwhile.
        """
        ...

    def chunks(self, job_id: str) -> ChunkPort | FilePort:
        """Return the place of the job's files: inputs in, outputs out."""
        ...

    def start(self, job_id: str) -> JobView:
        """Say that all inputs are there."""
        ...

    def view(
        self,
        job_id: str,
        *,
        version: int | None = None,
        wait_s: float = 0,
        end: bool = False,
        patience_s: float | None = None,
    ) -> JobView:
        """Return the job; given a ``version``, wait up to ``wait_s`` for another one or the end.

        With ``end`` nobody cares for what comes before the end: it need not be told.
        ``patience_s`` bounds how long an unanswered request is repeated; None: as the lane is.
        """
        ...

    def snapshot(self, job_id: str) -> SnapshotView:
        """Return what the job published last; raise NotFound when there is nothing."""
        ...

    def cancel(self, job_id: str) -> JobView:
        """Ask that the job be stopped. The answer is its state, which may be any."""
        ...

    def received(self, job_id: str) -> JobView:
        """Say that the result is safe here; then the other side may forget it."""
        ...


class Board(Protocol):
    """What a submitter may know beyond one job."""

    def jobs(self, *, after: str | None = None) -> JobPage:
        """Return own jobs, newest first."""
        ...

    def sites(self) -> SiteList:
        """Return the sites that serve this submitter."""
        ...

    def clock(self) -> datetime | None:
        """Return the other side's time as of its last answer, if it told."""
        ...

    def close(self) -> None: ...
