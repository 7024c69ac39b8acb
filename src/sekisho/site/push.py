"""Jobs that the workflow side brings itself: what a gate keeps of them, and how it shows them.

There is no broker: a job's state is read off its run. A record is durable before its answer, so
that a submission may be repeated after any cut (P1), and never makes a second job (P3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from sekisho.domain.errors import IntegrityError, TooLarge, UsageError
from sekisho.domain.job import JobState, alike
from sekisho.domain.limits import DRAFT_TIME
from sekisho.domain.run import STAGES, Run, Stage
from sekisho.transfer.tree import check_length, read_pieces
from sekisho.wire.envelope import open_request
from sekisho.wire.frames import Frame
from sekisho.wire.v1 import JobView


@dataclass(frozen=True, slots=True, kw_only=True)
class PushJob:
    """One job as its submitter brought it."""

    id: str
    site: str
    submitter: str
    request: bytes = b""
    #: Of the submission: the same id with another one is a conflict. Empty until described.
    digest: str = ""
    created_at: datetime
    expires_at: datetime  #: when it ends `expired` unless its carrier has taken it
    ready: bool = False  #: all inputs are here
    cancelled: bool = False
    expired: bool = False  #: written by the carrier of a ready job, by the gate of a draft
    received_at: datetime | None = None
    gone: bool = False  #: being dropped: shown to nobody, started by nobody, to be removed

    def resembles(self, other: PushJob) -> bool:
        """Say whether both may be the same submission: one of them may lack its request yet."""
        return self.submitter == other.submitter and alike(self.digest, other.digest)


class PushStore(Protocol):
    """Durable records of pushed jobs. Synchronous, durable on return, safe between processes."""

    def add(self, job: PushJob, admit: Callable[[], None]) -> PushJob:
        """Keep a new job or return the kept one; Conflict(`job.different_request`) for another.

        Either may lack its request yet; the kept one is returned as it is.
        What ``admit`` raises keeps a new one out; it is called with other writers locked out.
        """
        ...

    def get(self, job_id: str, submitter: str) -> PushJob:
        """Return the submitter's job, or raise NotFound."""
        ...

    def update(self, job_id: str, submitter: str, change: Callable[[PushJob], PushJob]) -> PushJob:
        """Replace the job by what ``change`` makes of it, with other writers locked out."""
        ...

    def of(self, submitter: str | None) -> list[PushJob]:
        """Return the jobs of a submitter, or of all, newest first."""
        ...

    def remove(self, job_id: str) -> None:
        """Forget the job and what it published."""
        ...

    def publish(self, job_id: str, snapshot: bytes) -> None:
        """Keep ``snapshot`` in place of the job's earlier one. One writer for each job."""
        ...

    def published(self, job_id: str) -> int:
        """Return how often the job has published."""
        ...

    def snapshot(self, job_id: str) -> bytes | None:
        """Return what the job published last."""
        ...

    def locked(self) -> AbstractContextManager[None]:
        """Lock other writers out."""
        ...


@dataclass(frozen=True, slots=True)
class Held:
    """Where a shelf has a chunk. What is there was verified when it came."""

    digest: str
    pack: str
    offset: int
    size: int  #: as it is kept
    packed: bool

    def follows(self, first: Held, size: int) -> bool:
        """Say whether it lies right behind the ``size`` bytes that begin with ``first``."""
        return self.pack == first.pack and self.offset == first.offset + size


class ChunkShelf(Protocol):
    """Chunks that submitters brought, apart for each. Synchronous, safe between processes.

    Errors: StorageFull, Unavailable(`storage.unavailable`), NotFound(`chunk.not_found`) when what
    was found was dropped since.
    """

    def find(self, space: str, digests: Iterable[str]) -> dict[str, Held]:
        """Return those of ``digests`` that are here."""
        ...

    def put(self, space: str, frames: Iterable[Frame]) -> None:
        """Store chunks, each verified, all durable on return. What came before an error stays."""
        ...

    def read(self, held: Held) -> Frame:
        """Return a verified chunk; IntegrityError(`chunk.damaged`), and then it is here no more."""
        ...

    def copy(self, helds: Sequence[Held], fd: int, offset: int) -> bool:
        """Write contents one behind the other into an open file; verify nothing.

        Say whether all of them came lately, were verified then and were not touched since: if not,
        whoever reads them has to verify.
        """
        ...

    def drop(self, space: str, before: datetime, wanted: Iterable[str] = ()) -> None:
        """Drop chunks that were not stored since ``before``, perhaps a day later.

        Those whose digest is ``wanted`` stay, and perhaps others with them. Who wants what is
        asked only when something is old.
        """
        ...

    def free_bytes(self) -> int: ...


_STATES: Final[dict[Stage, JobState]] = {
    Stage.TAKEN: JobState.ACCEPTED,
    Stage.ACCEPTED: JobState.ACCEPTED,
    Stage.STAGED: JobState.ACCEPTED,
    Stage.SUBMITTED: JobState.ACCEPTED,
    Stage.RUNNING: JobState.RUNNING,
    Stage.ENDED: JobState.RETURNING,
    Stage.COLLECTED: JobState.RETURNING,
    Stage.REFUSED: JobState.REFUSED,
    Stage.FAILED: JobState.FAILED,
    Stage.CANCELLED: JobState.CANCELLED,
    Stage.LOST: JobState.LOST,
    Stage.DROPPED: JobState.LOST,
}
_ORDER: Final = {state: n for n, state in enumerate(JobState)}


def due(job: PushJob, run: Run | None, now: datetime) -> bool:
    """Say whether nobody took ``job`` in time, so that it has to end `expired`."""
    if run is not None or job.cancelled or job.expired or job.gone:
        return False
    return (
        job.expires_at if job.ready else min(job.expires_at, job.created_at + DRAFT_TIME)
    ) <= now


def lacking(shelf: ChunkShelf, job: PushJob) -> int:
    """Return how many pieces of the inputs of ``job`` are not here; 0 for a list that is wrong.

    A request or a list that is wrong is refused by whoever carries the job, and says why.
    """
    wanted = pieces_of(shelf, job)
    return len(wanted - shelf.find(job.submitter, wanted).keys())


def pieces_of(shelf: ChunkShelf, job: PushJob) -> set[str]:
    """Return the digests of all pieces of the inputs of ``job``; none for a list that is wrong.

    Of inputs whose list is not all here, those of the list.
    """
    try:
        ref = open_request(job.request).inputs
        listed = [] if ref is None else [chunk.digest for chunk in ref.index]
        here = shelf.find(job.submitter, listed)
        if ref is None or set(listed) - here.keys():
            return set(listed)
        check_length(ref)
        tree = read_pieces((shelf.read(here[d]).opened()[1] for d in listed), ref)
    except (UsageError, IntegrityError, TooLarge):
        return set()
    return {*listed, *(chunk.digest for chunk in tree.chunks())}


def state_of(job: PushJob, run: Run | None) -> JobState:
    """Return where ``job`` is, from its run. A final stage shows once its last word is recorded."""
    if run is None:
        if job.expired:
            return JobState.EXPIRED
        if job.ready:
            return JobState.QUEUED  # cancelled or not: its carrier closes it
        return JobState.CANCELLED if job.cancelled else JobState.DRAFT
    if run.stage is Stage.RETURNED:
        return JobState.SUCCEEDED if run.ok else JobState.FAILED
    return _STATES[run.stage]


def wants_inputs(job: PushJob, run: Run | None) -> bool:
    """Say whether ``job`` may still want the inputs that its submitter brought.

    What is staged, or runs, may: it is judged again, moves to another host, or is tried afresh.
    """
    if run is None:
        return not state_of(job, run).terminal
    return Stage.ACCEPTED in STAGES.get(run.stage, ()) or run.stage is Stage.ACCEPTED


def owed(job: PushJob, run: Run | None) -> bool:
    """Say whether a carrier has still to do something about ``job``."""
    return job.ready and not (job.gone or job.expired) and (run is None or not run.settled)


def view_of(job: PushJob, run: Run | None, published: int = 0) -> JobView:
    """Return what the submitter may see of ``job``, which has ``published`` so often."""
    state = state_of(job, run)
    return JobView(
        id=job.id,
        site=job.site,
        submitter=job.submitter,
        state=state.value,
        version=2 * _ORDER[state] + int(job.cancelled) + 2 * len(_ORDER) * published,
        created_at=job.created_at,
        changed_at=_changed_at(job, run),
        expires_at=job.expires_at,
        cancel_requested=job.cancelled,
        result=run.result if run and state.terminal else None,
        received=job.received_at is not None,
        snapshots=published,
    )


def _changed_at(job: PushJob, run: Run | None) -> datetime:
    if run is None:
        return job.expires_at if job.expired else job.created_at
    return run.finished_at or run.taken_at
