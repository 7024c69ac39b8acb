"""A scheduler without processes: commands are plays, and time passes by the clock given.

What it knows is the machine's state, not the agent's: give the same one to the next agent, as a
machine goes on when an agent dies. The run latch and the logs are really made.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import anyio

from sekisho.domain.clock import Clock
from sekisho.domain.run import Exit
from sekisho.site.scheduler import (
    Exited,
    Gone,
    LaunchSpec,
    NotStarted,
    Observation,
    Pending,
    Running,
    Ticket,
)

_KILLED = 137


def nothing(_: Path) -> None:
    """Leave the work directory as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """What a command does: waits, leaves files, runs for some seconds, ends in some way."""

    pending_s: float = 0.0
    seconds: float = 0.0
    code: int = 0
    leave: Callable[[Path], None] = nothing  #: acts on the work directory when it starts
    stdout: str = ""
    on_term: int | None = 143  #: the exit code after a polite request; None: it is ignored
    fate: Literal["exits", "vanishes", "never starts"] = "exits"
    why: str | None = None  #: what the scheduler says ended it


@dataclass(slots=True)
class _Job:
    spec: LaunchSpec
    play: Play
    begins_at: float
    ends_at: float
    code: int
    begins: datetime
    begun: bool = False


@dataclass(slots=True)
class MemoryScheduler:
    """Implements `site.scheduler.Scheduler`. ``cast`` says what play a spec is.

    `started` are the tokens of what really began, in order: the witness of P3. `pressed` are the
    requests to stop, with their force and time.
    """

    clock: Clock
    cast: Callable[[LaunchSpec], Play]
    started: list[str] = field(default_factory=list)
    pressed: list[tuple[str, bool, float]] = field(default_factory=list)
    _jobs: dict[str, _Job] = field(default_factory=dict)
    _waiting: set[anyio.Event] = field(default_factory=set)

    async def submit(self, spec: LaunchSpec) -> Ticket:
        if spec.control_dir not in self._jobs:
            play = self.cast(spec)
            begins_at = self.clock.monotonic() + play.pending_s
            begins = self.clock.now() + timedelta(seconds=play.pending_s)
            ends_at = begins_at + play.seconds
            job = _Job(spec, play, begins_at, ends_at, play.code, begins)
            self._jobs[spec.control_dir] = job
            self._tell()
            self._look(job)
        return self._jobs[spec.control_dir].spec.ticket("play")

    async def observe(self, tickets: Collection[Ticket]) -> dict[Ticket, Observation]:
        return {ticket: self._seen(ticket) for ticket in tickets}

    async def cancel(self, ticket: Ticket, *, force: bool) -> None:
        job, now = self._jobs[ticket.control_dir], self.clock.monotonic()
        self.pressed.append((ticket.token, force, now))
        code = _KILLED if force else job.play.on_term
        if code is not None and self._look(job) == Running():
            job.ends_at, job.code = now, code
            self._tell()

    async def find(self, spec: LaunchSpec) -> Ticket | None:
        for job in self._jobs.values():
            if job.spec.token == spec.token and self._look(job) in (Pending(), Running()):
                return job.spec.ticket("play")
        return None

    async def changed(self, tickets: Collection[Ticket], timeout_s: float) -> None:
        now = self.clock.monotonic()
        jobs = [self._jobs[t.control_dir] for t in tickets if t.control_dir in self._jobs]
        if any(self._look(job) not in (Pending(), Running()) for job in jobs):
            return
        turns = [at - now for job in jobs for at in (job.begins_at, job.ends_at) if at > now]
        news = anyio.Event()
        self._waiting.add(news)
        try:
            with anyio.move_on_after(min([timeout_s, *turns])):
                await news.wait()
        finally:
            self._waiting.discard(news)

    def vanish(self, token: str) -> None:
        """Let what runs with ``token`` be gone without a record, as by a reboot."""
        for job in self._jobs.values():
            if job.spec.token == token:
                self._look(job)
                job.ends_at = self.clock.monotonic()
                job.play = Play(fate="vanishes")
        self._tell()

    def _seen(self, ticket: Ticket) -> Observation:
        job = self._jobs.get(ticket.control_dir)
        return NotStarted() if job is None else self._look(job)

    def _look(self, job: _Job) -> Observation:
        now = self.clock.monotonic()
        if now < job.begins_at:
            return Pending()
        if job.play.fate == "never starts":
            return NotStarted(job.play.why)
        if not job.begun:
            job.begun = True
            self._begin(job)
        if now < job.ends_at:
            return Running()
        if job.play.fate == "vanishes":
            return Gone(job.play.why)
        seconds = timedelta(seconds=job.ends_at - job.begins_at)
        number = job.code - 128 if job.code > 128 else 0
        ended_at = job.begins + seconds
        ended = Exit(code=job.code, signal=number, started_at=job.begins, ended_at=ended_at)
        return Exited(ended, job.play.why if job.code else None)

    def _begin(self, job: _Job) -> None:
        control = Path(job.spec.control_dir)
        (control / "latch").mkdir()
        (control / "stdout").write_text(job.play.stdout)
        (control / "stderr").touch()
        self.started.append(job.spec.token)
        job.play.leave(Path(job.spec.work_dir))

    def _tell(self) -> None:
        for news in self._waiting:
            news.set()
