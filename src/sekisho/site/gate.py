"""The gate: what one submitter's key opens at a site, and nothing else.

Rule 1: who calls is said by the line of the key, never by the caller.
Rule 2: a call is one of the verbs below; a job or chunk of somebody else does not exist.
Rule 3: the gate decides nothing: a carrier runs the same runner as the agent's, and what the gate
        hands out are the recorded words and the staged copy that passed the egress policy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Protocol

import msgspec
import structlog

from sekisho.domain.clock import Clock
from sekisho.domain.errors import (
    Conflict,
    Corrupt,
    IntegrityError,
    NotFound,
    SekishoError,
    StorageFull,
    SyncFailed,
)
from sekisho.domain.job import JobState
from sekisho.domain.limits import DRAFT_TIME, QUEUE_TIME
from sekisho.domain.resources import LOCAL
from sekisho.domain.run import Run, Stage
from sekisho.site.push import (
    ChunkShelf,
    PushJob,
    PushStore,
    due,
    lacking,
    owed,
    pieces_of,
    state_of,
    view_of,
    wants_inputs,
)
from sekisho.site.workplace import Workplace
from sekisho.wire.frames import Chunk, Frame, FrameReader
from sekisho.wire.v1 import Identity, JobPage, JobView, OpenDraft, SnapshotView, SubmitJob

log = structlog.get_logger()
PAGE: Final = 100
#: How long what was received, and what never was, is kept for being asked again.
KEEP_RECEIVED: Final = timedelta(days=1)
KEEP_UNRECEIVED: Final = timedelta(days=60)
KEEP_CHUNKS: Final = timedelta(days=7)
#: What submitters bring must leave room for what the site has to write.
SPARE_BYTES: Final = 256 << 20
ROOM_BYTES: Final = 16 << 20


class Runs(Protocol):
    """The runs of pushed jobs, as their carriers record them."""

    def run(self, job: str) -> Run | None: ...

    def forget(self, job: str) -> None: ...

    def knew(self, job: str) -> bool:
        """Say whether a run of this job was forgotten: it is never started again."""
        ...


class Carrier(Protocol):
    """The process that carries the site's pushed jobs: one at the most, gone when all is done."""

    def ensure(self, *, news: bool) -> None:
        """See to it that there is one; tell it to look at once when there is ``news``."""
        ...

    def revive(self) -> None:
        """Start one if the last did not leave by itself."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The verbs of one ``submitter`` at one ``site``."""

    site: str
    submitter: str
    version: str
    store: PushStore
    runs: Runs
    chunks: ChunkShelf
    carrier: Carrier
    workplaces: Callable[[str], Workplace]  #: by host; on any, `staged` is this machine's own
    clock: Clock
    #: Pauses up to so many seconds; True when the caller has more to say, or is gone.
    pause: Callable[[float], bool]
    #: Of the job whose outputs were handed out last.
    held: dict[str, Mapping[str, Callable[[], bytes]]] = field(default_factory=dict)

    def identity(self) -> Identity:
        """Say whom the gate takes the caller for, and its own clock."""
        now = self.clock.now()
        return Identity(
            role="submitter",
            name=self.submitter,
            at=now,
            broker_version=self.version,
            max_body_bytes=0,
        )

    def open(self, draft: OpenDraft) -> JobView:
        """Keep a job whose request comes later, once its inputs, which may come now, are read."""
        now = self.clock.now()
        job = PushJob(
            id=draft.id,
            site=draft.site,
            submitter=self.submitter,
            created_at=now,
            expires_at=now + DRAFT_TIME,
        )
        return self._seen(self._kept(job))

    def submit(self, message: SubmitJob) -> JobView:
        """Keep a new job; the same submission again finds the same job."""
        now = self.clock.now()
        queue = timedelta(seconds=message.queue_s) if message.queue_s else QUEUE_TIME
        digest = hashlib.sha256(msgspec.json.encode(message)).hexdigest()
        job = PushJob(
            id=message.id,
            site=message.site,
            submitter=self.submitter,
            request=message.request,
            digest=digest,
            created_at=now,
            expires_at=now + queue,
            ready=not message.has_inputs,
        )
        kept = self._kept(job)
        if not kept.digest:
            kept = self._changed(job.id, lambda draft: _described(draft, job))
        return self._seen(kept, news=True)

    def _kept(self, job: PushJob) -> PushJob:
        """Return what is kept under the id of ``job``: this, or what came before."""
        if job.site != self.site:
            raise NotFound("site.not_found", site=job.site)
        kept = self.store.add(job, lambda: self._not_forgotten(job.id))
        if kept.gone:
            raise Conflict("job.forgotten", job=kept.id)
        return kept

    def _not_forgotten(self, job_id: str) -> None:
        if self.runs.knew(job_id):
            raise Conflict("job.forgotten", job=job_id)

    def start(self, job_id: str) -> JobView:
        """Take the inputs as complete, if they are: else raise Conflict(`job.inputs_missing`)."""

        def begin(job: PushJob) -> PushJob:
            return job if job.cancelled or job.expired else replace(job, ready=True)

        job = self._job(job_id)
        open_draft = not (job.ready or job.cancelled or job.expired)
        if open_draft and not job.digest:
            raise Conflict("job.not_described", job=job_id)
        if open_draft and (count := lacking(self.chunks, job)):
            raise Conflict("job.inputs_missing", job=job_id, count=count)
        return self._seen(self._changed(job_id, begin), news=True)

    def view(self, job_id: str, version: int | None, wait_s: float) -> JobView:
        """Return the job; given a ``version``, wait for another one, or for the end."""
        job = self._job(job_id)
        view = self._seen(job)
        begun = self.clock.monotonic()
        end = begun + wait_s
        pause = 0.004
        while view.version == version and not JobState(view.state).terminal:
            left = end - self.clock.monotonic()
            if left <= 0 or self.pause(min(pause, left)):
                break
            waited = self.clock.monotonic() - begun
            pause = min(pause * 1.3, max(0.02, 0.04 * waited), 0.5)
            view = self._seen(self._job(job_id))
        return view

    def snapshot(self, job_id: str) -> SnapshotView:
        """Return what the job published last, as it was cleared and recorded."""
        job = self._job(job_id)
        number, snapshot = self.store.published(job.id), self.store.snapshot(job.id)
        if snapshot is None:
            raise NotFound("snapshot.not_found", job=job.id)
        return SnapshotView(number=number, snapshot=snapshot)

    def cancel(self, job_id: str) -> JobView:
        """Ask that the job be stopped; the answer is its state, which may be any."""

        def ask(job: PushJob) -> PushJob:
            ended = self._state(job).terminal
            return job if ended else replace(job, cancelled=True)

        return self._seen(self._changed(job_id, ask), news=True)

    def received(self, job_id: str) -> JobView:
        """Note that the result is safe with the submitter."""

        def note(job: PushJob) -> PushJob:
            if not self._state(job).terminal:
                raise Conflict("job.not_ended", job=job_id)
            return replace(job, received_at=job.received_at or self.clock.now())

        return self._seen(self._changed(job_id, note))

    def jobs(self, after: str | None) -> JobPage:
        """Return the submitter's jobs, newest first."""
        jobs = [j for j in self.store.of(self.submitter) if after is None or j.id < after]
        jobs = [j for j in jobs if not j.gone]
        page = jobs[:PAGE]
        more = page[-1].id if len(jobs) > PAGE else None
        views = [self._viewed(job, self.runs.run(job.id)) for job in page]
        return JobPage(jobs=[msgspec.structs.replace(v, result=None) for v in views], next=more)

    def missing(self, job_id: str, chunks: Sequence[Chunk]) -> list[str]:
        """Say which of the submitter's chunks are not here yet; only for a draft."""
        self._draft(job_id)
        digests = [c.digest for c in chunks]
        here = self.chunks.find(self.submitter, digests)
        return [digest for digest in digests if digest not in here]

    def put(self, job_id: str, pieces: Iterable[bytes]) -> None:
        """Store chunks, verified, and durably."""
        self._draft(job_id)
        self.chunks.put(self.submitter, self._frames(pieces))

    def _frames(self, pieces: Iterable[bytes]) -> Iterator[Frame]:
        """Return what ``pieces`` bring, for as long as there is room for it."""
        reader = FrameReader()
        room = 0
        for piece in pieces:
            for frame in reader.split(piece):
                if room < len(frame):
                    room = self._room()
                room -= len(frame)
                yield frame
        reader.end()

    def _room(self) -> int:
        """Return how much may come before this is asked again."""
        if self.chunks.free_bytes() < SPARE_BYTES:
            raise StorageFull
        return ROOM_BYTES

    def fetch(self, job_id: str, digests: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Return chunks of the job's released outputs, and of their list. Nothing else is here."""
        job = self._job(job_id)
        run = self.runs.run(job.id)
        if run is None or run.stage is not Stage.RETURNED or run.tree is None:
            raise NotFound("chunk.not_found")
        copy = self._copy(run)
        if not copy.keys() >= set(digests):
            raise NotFound("chunk.not_found")
        return ((digest, copy[digest]()) for digest in digests)

    def _copy(self, run: Run) -> Mapping[str, Callable[[], bytes]]:
        """Return how each chunk of the staged copy is read. The last job's is at hand."""
        if run.job not in self.held:
            workplace = self.workplaces(LOCAL)
            staged = workplace.staged(workplace.place(run.job, run.attempt))
            if not staged.recorded(run):
                raise IntegrityError("site.staging_changed")
            read = {c.digest: partial(staged.read, c) for c in staged.tree.chunks()}
            listed = {c.digest: partial(bytes, data) for c, data in staged.tree.index()}
            self.held.clear()
            self.held[run.job] = {**read, **listed}
        return self.held[run.job]

    def visit(self) -> None:
        """See that what a killed carrier has left is carried on."""
        self.carrier.revive()

    def tidy(self) -> None:
        """Look at every job of the submitter: carry what nobody carries, drop what is past."""
        for job in self.store.of(self.submitter):
            try:
                if owed(job, self.runs.run(job.id)):
                    self.carrier.ensure(news=False)
                else:
                    self._drop_if_past(job)
            except SyncFailed:
                raise
            except SekishoError as error:  # one damaged record does not keep the others
                log.warning("job_not_tidied", job=job.id, code=error.code)
        self._drop_chunks()

    def _drop_if_past(self, job: PushJob) -> None:
        """Drop a job for good. What a crash interrupts here is gone all the same, and goes on."""
        now = self.clock.now()

        def mark(kept: PushJob) -> PushJob:
            kept = self._aged(kept)
            return replace(kept, gone=kept.gone or _past(kept, self.runs.run(kept.id), now))

        if _past(self._aged(job), self.runs.run(job.id), now) or job.gone:
            gone = self.store.update(job.id, self.submitter, mark).gone
            run = self.runs.run(job.id)
            if gone and self.workplaces(run.venue.host if run else LOCAL).purge(job.id):
                self.runs.forget(job.id)
                self.store.remove(job.id)

    def _drop_chunks(self) -> None:
        """Drop old chunks that no job can want, at a moment when no draft may come to want one."""
        with self.store.locked():
            jobs = [job for job in self.store.of(self.submitter) if self._may_want_inputs(job)]
            if all(job.ready for job in jobs):
                wanted = (digest for job in jobs for digest in pieces_of(self.chunks, job))
                self.chunks.drop(self.submitter, self.clock.now() - KEEP_CHUNKS, wanted)

    def _may_want_inputs(self, job: PushJob) -> bool:
        try:
            return wants_inputs(job, self.runs.run(job.id))
        except Corrupt:
            return True

    def _job(self, job_id: str) -> PushJob:
        job = _there(self.store.get(job_id, self.submitter))
        return job if self._aged(job) is job else self._changed(job_id, lambda kept: kept)

    def _changed(self, job_id: str, change: Callable[[PushJob], PushJob]) -> PushJob:
        return self.store.update(
            job_id, self.submitter, lambda job: change(self._aged(_there(job)))
        )

    def _aged(self, job: PushJob) -> PushJob:
        """End a draft whose inputs did not come in time. Of a ready job the carrier decides."""
        late = not job.ready and due(job, None, self.clock.now())
        return replace(job, expired=True) if late else job

    def _draft(self, job_id: str) -> PushJob:
        job = self._job(job_id)
        if job.ready or job.cancelled or job.expired:
            state = self._state(job).value
            raise Conflict("job.invalid_transition", job=job_id, state=state)
        return job

    def _state(self, job: PushJob) -> JobState:
        return state_of(job, self.runs.run(job.id))

    def _seen(self, job: PushJob, *, news: bool = False) -> JobView:
        """Return the view of a job; what is to be carried finds its carrier."""
        run = self.runs.run(job.id)
        if owed(job, run):
            self.carrier.ensure(news=news)
        return self._viewed(job, run)

    def _viewed(self, job: PushJob, run: Run | None) -> JobView:
        return view_of(job, run, self.store.published(job.id) if run and run.ticket else 0)


def _there(job: PushJob) -> PushJob:
    if job.gone:
        raise NotFound("job.not_found", job=job.id)
    return job


def _described(draft: PushJob, job: PushJob) -> PushJob:
    """Return ``draft`` with the request of ``job``, which never changes again."""
    if not draft.resembles(job):
        raise Conflict("job.different_request", job=job.id)
    if draft.digest or draft.cancelled or draft.expired:
        return draft
    return replace(
        draft,
        request=job.request,
        digest=job.digest,
        expires_at=job.expires_at,
        ready=job.ready,
    )


def _past(job: PushJob, run: Run | None, now: datetime) -> bool:
    """Say whether nobody may ask for ``job`` any more."""
    if run is None:
        ended = state_of(job, run).terminal
        return ended and (job.received_at or job.expires_at) + KEEP_RECEIVED < now
    if not run.settled or (run.keep_until is not None and now <= run.keep_until):
        return False
    if job.received_at is not None:
        return job.received_at + KEEP_RECEIVED < now
    return (run.finished_at or run.taken_at) + KEEP_UNRECEIVED < now
