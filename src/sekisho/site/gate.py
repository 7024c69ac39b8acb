"""The gate: what one submitter's key opens at a site, and nothing else.

Rule 1: who calls is said by the line of the key, never by the caller.
Rule 2: a call is one of the verbs below; a job or chunk of somebody else does not exist.
Rule 3: the gate decides nothing: a carrier runs the same runner as the agent's, and what the gate
        hands out are the recorded words and the staged copy that passed the egress policy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, Protocol

import msgspec

from sekisho.domain.clock import Clock
from sekisho.domain.errors import Conflict, IntegrityError, NotFound
from sekisho.domain.job import JobState
from sekisho.domain.limits import DRAFT_TIME
from sekisho.domain.run import Run, Stage
from sekisho.site.push import ChunkShelf, PushJob, PushStore, state_of, view_of
from sekisho.site.workplace import Staged, Workplace
from sekisho.wire.frames import Chunk, FrameReader
from sekisho.wire.v1 import Identity, JobPage, JobView, SubmitJob

PAGE: Final = 100
#: How long what was received, and what never was, is kept for being asked again.
KEEP_RECEIVED: Final = timedelta(days=1)
KEEP_CHUNKS: Final = timedelta(days=7)


class Runs(Protocol):
    """The runs of pushed jobs, as their carriers record them."""

    def run(self, job: str) -> Run | None: ...

    def forget(self, job: str) -> None: ...


class Carrier(Protocol):
    """The process that carries the site's pushed jobs: one at the most, gone when all is done."""

    def ensure(self) -> None:
        """See to it that somebody looks at the jobs now: wake the carrier, or start one."""
        ...

    def present(self) -> bool:
        """Say whether there is one."""
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
    workplace: Workplace
    clock: Clock
    #: Pauses up to so many seconds; True when the caller has more to say, or is gone.
    pause: Callable[[float], bool]

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

    def submit(self, message: SubmitJob) -> JobView:
        """Keep a new job; the same submission again finds the same job."""
        if message.site != self.site:
            raise NotFound("site.not_found", site=message.site)
        now = self.clock.now()
        digest = hashlib.sha256(msgspec.json.encode(message)).hexdigest()
        job = self.store.add(
            PushJob(
                id=message.id,
                site=self.site,
                submitter=self.submitter,
                request=message.request,
                digest=digest,
                created_at=now,
                expires_at=now + DRAFT_TIME,
                ready=not message.has_inputs,
            )
        )
        return self._seen(job)

    def start(self, job_id: str) -> JobView:
        """Take the inputs as complete; whether they are, the carrier sees."""

        def begin(job: PushJob) -> PushJob:
            return job if job.cancelled else replace(job, ready=True)

        return self._seen(self.store.update(job_id, self.submitter, begin))

    def view(self, job_id: str, version: int | None, wait_s: float) -> JobView:
        """Return the job; given a ``version``, wait for another one, or for the end."""
        job = self._job(job_id)
        view = self._seen(job)
        end = self.clock.monotonic() + wait_s
        pause = 0.004
        while view.version == version and not JobState(view.state).terminal:
            left = end - self.clock.monotonic()
            if left <= 0 or self.pause(min(pause, left)):
                break
            pause = min(pause * 1.3, 0.5)
            view = self._seen(self._job(job_id))
        return view

    def cancel(self, job_id: str) -> JobView:
        """Ask that the job be stopped; the answer is its state, which may be any."""

        def ask(job: PushJob) -> PushJob:
            ended = self._state(job).terminal
            return job if ended else replace(job, cancelled=True)

        return self._seen(self.store.update(job_id, self.submitter, ask))

    def received(self, job_id: str) -> JobView:
        """Note that the result is safe with the submitter."""

        def note(job: PushJob) -> PushJob:
            if not self._state(job).terminal:
                raise Conflict("job.not_ended", job=job_id)
            return replace(job, received_at=job.received_at or self.clock.now())

        return self._seen(self.store.update(job_id, self.submitter, note))

    def jobs(self, after: str | None) -> JobPage:
        """Return the submitter's jobs, newest first."""
        jobs = [j for j in self.store.of(self.submitter) if after is None or j.id < after]
        page = jobs[:PAGE]
        more = page[-1].id if len(jobs) > PAGE else None
        views = [view_of(job, self.runs.run(job.id)) for job in page]
        return JobPage(jobs=[msgspec.structs.replace(v, result=None) for v in views], next=more)

    def missing(self, job_id: str, chunks: Sequence[Chunk]) -> list[str]:
        """Say which of the submitter's chunks are not here yet; only for a draft."""
        self._draft(job_id)
        return self.chunks.missing(self.submitter, [c.digest for c in chunks])

    def put(self, job_id: str, pieces: Iterable[bytes]) -> None:
        """Store chunks, each durably as it comes, verified."""
        self._draft(job_id)
        reader = FrameReader()
        for piece in pieces:
            for chunk, data in reader.feed(piece):
                self.chunks.put(self.submitter, chunk.digest, data)
        reader.end()

    def fetch(self, job_id: str, digests: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Return chunks of the job's released outputs, and of their list. Nothing else is here."""
        job = self._job(job_id)
        run = self.runs.run(job.id)
        if run is None or run.stage is not Stage.RETURNED or run.tree is None:
            raise NotFound("chunk.not_found")
        staged = self._staged(run)
        index = {c.digest: data for c, data in staged.tree.index()}
        known = {c.digest: c for c in staged.tree.chunks()}
        if any(d not in index and d not in known for d in digests):
            raise NotFound("chunk.not_found")
        return ((d, index[d] if d in index else staged.read(known[d])) for d in digests)

    def _staged(self, run: Run) -> Staged:
        staged = self.workplace.staged(self.workplace.place(run.job, run.attempt))
        if staged.tree.digest != run.tree:
            raise IntegrityError("site.staging_changed")
        return staged

    def visit(self) -> None:
        """Look at every job of the submitter: carry what nobody carries, drop what is past."""
        now = self.clock.now()
        for job in self.store.of(self.submitter):
            run = self.runs.run(job.id)
            if state_of(job, run).terminal or not job.ready:
                self._drop_if_past(job, run)
            elif not self.carrier.present():
                self.carrier.ensure()
        past = [d for space, d in self.chunks.older(now - KEEP_CHUNKS) if space == self.submitter]
        self.chunks.delete(self.submitter, past)

    def _drop_if_past(self, job: PushJob, run: Run | None) -> None:
        now = self.clock.now()
        if run is None:
            past = job.expires_at < now
        else:
            received = job.received_at is not None and job.received_at + KEEP_RECEIVED < now
            past = received and (run.keep_until is None or run.keep_until < now)
        if past:
            self.workplace.purge(job.id)
            self.runs.forget(job.id)
            self.store.remove(job.id)

    def _job(self, job_id: str) -> PushJob:
        return self.store.get(job_id, self.submitter)

    def _draft(self, job_id: str) -> PushJob:
        job = self._job(job_id)
        if job.ready:
            raise Conflict("job.invalid_transition", job=job_id)
        return job

    def _state(self, job: PushJob) -> JobState:
        return state_of(job, self.runs.run(job.id))

    def _seen(self, job: PushJob) -> JobView:
        """Return the view of a job; what is to be carried finds its carrier."""
        run = self.runs.run(job.id)
        if job.ready and not state_of(job, run).terminal:
            news = run is None or (job.cancelled and run.stop is None)
            if news or not self.carrier.present():
                self.carrier.ensure()
        return view_of(job, run)
