"""What the runner needs of whatever starts commands at a site, and the values of that talk.

Rules: a command is named by a token that the runner journals *before* it submits; the wrapper's run
latch makes a repeated submit harmless; an end is believed only from an exit record with that token;
every other look has its own type, so that absence is never taken for success.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

from sekisho.domain.errors import Corrupt, UsageError
from sekisho.domain.launch import LaunchLimits, check_variable, check_word
from sekisho.domain.resources import Resources, Venue
from sekisho.domain.run import Exit, Part

TOKEN_PATTERN: Final = r"[A-Za-z0-9_-]{8,128}"  # noqa: S105 a pattern, not a secret


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """One command to start once. Both directories are absolute, exist, and are fresh for this job.

    ``work_dir`` is the command's current directory; ``control_dir`` receives the latch, ``stdout``,
    ``stderr`` and the exit record. ``env`` is the whole environment, byte for byte.
    """

    token: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    work_dir: str
    control_dir: str
    limits: LaunchLimits = field(default_factory=LaunchLimits)
    venue: Venue = field(default_factory=Venue)
    resources: Resources = field(default_factory=Resources)

    def __post_init__(self) -> None:
        if re.fullmatch(TOKEN_PATTERN, self.token) is None:
            raise UsageError("launch.token")
        if not self.argv or not all(p.startswith("/") for p in (self.argv[0], *self._directories)):
            raise UsageError("launch.path")
        for name in self.env:
            check_variable(name)
        for word in (*self.argv, *self.env.values(), *self._directories):
            check_word(word)

    @property
    def _directories(self) -> tuple[str, str]:
        return self.work_dir, self.control_dir

    def ticket(self, reference: str) -> Ticket:
        """Return the ticket of what was started so, under the scheduler's own name for it."""
        return Ticket(
            token=self.token,
            work_dir=self.work_dir,
            control_dir=self.control_dir,
            reference=reference,
            venue=self.venue,
            elements=self.resources.elements,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What a scheduler needs to find again what it started; goes into the journal as text.

    ``reference`` is the scheduler's own name for it (a process, a batch job's id); ``elements`` is
    how many an array has, each with a directory of its own below ``control_dir``.
    """

    token: str
    work_dir: str
    control_dir: str
    reference: str
    venue: Venue = field(default_factory=Venue)
    elements: int | None = None

    def encode(self) -> str:
        return msgspec.json.encode(self).decode()

    @classmethod
    def decode(cls, text: str) -> Ticket:
        """Return the ticket that ``encode`` made ``text`` of, or raise Corrupt."""
        try:
            return msgspec.json.decode(text, type=cls)
        except msgspec.DecodeError as fault:
            raise Corrupt(kind="ticket") from fault


@dataclass(frozen=True, slots=True)
class Pending:
    """Submitted; the wrapper has not yet taken the latch.

    ``held``: it will not by itself. Somebody at the batch system has to do something.
    """

    held: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    """Something of it runs, perhaps only what it left behind."""


@dataclass(frozen=True, slots=True)
class Exited:
    """It ended, nothing of it runs any more, and this is its exit record.

    ``why`` is the code of what ended it, when that was not its own doing. Of an array ``exit`` is
    that of the first element that failed, and ``part`` tells which did.
    """

    exit: Exit
    why: str | None = None
    part: Part | None = None


@dataclass(frozen=True, slots=True)
class Gone:
    """It was started, nothing of it runs, and there is no exit record: its fate is unknown.

    Unless the scheduler knows ``why`` it is gone, by a code. Of an array it is ``part`` that did
    not end.
    """

    why: str | None = None
    part: Part | None = None


@dataclass(frozen=True, slots=True)
class NotStarted:
    """Nothing of it runs and no wrapper came as far as a start: it may be submitted again.

    Unless the scheduler knows ``why``: somebody took it out of the queue.
    """

    why: str | None = None


Observation = Pending | Running | Exited | Gone | NotStarted


class Scheduler(Protocol):
    """Start commands, find them again, look at them, stop them.

    All methods may be called again at any time, by an agent that has restarted; none waits for a
    command. Faults: Unavailable when it may work later, SekishoError("launch.failed") when not.
    """

    async def submit(self, spec: LaunchSpec) -> Ticket:
        """Start ``spec`` and return its ticket.

        Idempotent by ``control_dir``: a second start, by whomever, finds the latch taken and ends;
        its ticket leads to the first. After a crash or a fault, submit again with the same spec.
        """
        ...

    async def observe(self, tickets: Collection[Ticket]) -> dict[Ticket, Observation]:
        """Say for each ticket what is there now. Level-triggered: no memory of earlier looks.

        `Exited`, `Gone` and `NotStarted` promise that nothing of the command runs.
        """
        ...

    async def cancel(self, ticket: Ticket, *, force: bool) -> None:
        """Ask all processes of the command to end (TERM), or with ``force`` make them end (KILL).

        A request: the outcome is what `observe` says afterwards, which may be a normal exit. May
        come before the command has started and then do nothing: repeat it until it is over.
        """
        ...

    async def find(self, spec: LaunchSpec) -> Ticket | None:
        """Return the ticket of what waits or runs with the token of ``spec``; None: nothing does.

        For an agent that crashed between submit and journal. After None, submitting the same spec
        again is safe, and its ticket tells how the first start ended.
        """
        ...

    async def changed(self, tickets: Collection[Ticket], timeout_s: float) -> None:
        """Return when a look at one of ``tickets`` may say something new, or after ``timeout_s``.

        A hint, which may come early. An end is never missed; a start that falls between a look and
        this call may be. Give it no ticket that is over: it would return at once.
        """
        ...
