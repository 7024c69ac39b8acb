"""What every step of the runner works with: the site's ports, and its present word.

Nothing is decided here. `Control` is what lives only as long as the agent's process; all that must
outlive it is in `Run`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar

import anyio
from anyio import CapacityLimiter, to_thread
from anyio.abc import TaskGroup
from anyio.lowlevel import RunVar

from sekisho.domain.clock import Clock
from sekisho.domain.errors import SekishoError, SyncFailed, Unavailable
from sekisho.domain.manifest import Command, Manifest
from sekisho.domain.resources import LOCAL
from sekisho.domain.run import Run, Stop
from sekisho.domain.sitelog import Kind, Link, Record
from sekisho.site.host import Host
from sekisho.site.journal import Journal
from sekisho.site.mailbox import EarlyLine, Hold, Mailbox
from sekisho.site.sandbox import Sandbox
from sekisho.site.scheduler import Scheduler
from sekisho.site.slots import Slots
from sekisho.site.stock import Stock
from sekisho.site.workplace import Place, Workplace

T = TypeVar("T")
_WORKPLACE_THREADS: Final = 16
Fact: TypeAlias = tuple[Kind, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Word:
    """The site's present word: its manifest, and commands switched off by either side."""

    manifest: Manifest
    disabled: frozenset[str] = frozenset()

    def command(self, run: Run) -> Command | None:
        return self.manifest.commands.get(run.command)


def no_host(name: str) -> Host:
    """Raise Unavailable: no host of that name is here."""
    raise Unavailable("host.unknown", host=name)


class NotNow(SekishoError):
    """A run waits for something that takes long, and nobody wants to wait for it now."""

    code = "run.not_now"


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The ports of one site."""

    mailbox: Mailbox
    journal: Journal
    scheduler: Scheduler
    workplaces: Callable[[str], Workplace]  #: by the name of a host, as `hosts`
    sandbox: Sandbox
    slots: Slots
    clock: Clock
    word: Callable[[], Word]
    roll: Callable[[], float]  #: uniform in 0..1, for jitter
    token: Callable[[], str]  #: a new launch token
    early: EarlyLine | None = None  #: None: inputs come when the job is ours
    stock: Stock | None = None  #: None: every job gets its own copy of each input
    hosts: Callable[[str], Host] = no_host  #: by the name that a command of the manifest gives
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep

    def workplace(self, run: Run) -> Workplace:
        """Return where the directories of ``run`` are; raise Unavailable when that is not known."""
        return self.workplaces(run.venue.host)

    def place(self, run: Run) -> Place:
        """Return the directories of the present attempt of ``run``."""
        place = self.workplace(run).place(run.job, run.attempt)
        return replace(place, elements=run.resources.elements)

    async def save(self, run: Run, *, lasting: bool = True) -> Run:
        """Remember ``run`` and return it; ``lasting`` is the journal's word."""
        await in_thread(partial(self.journal.save, run, lasting=lasting))
        return run

    async def log(self, run: Run, *facts: Fact) -> Link:
        """Add records about ``run`` to the site's log, durably, and return the last link."""
        return await in_thread(self.journal.append, self._records(run, facts))

    async def record(self, run: Run, *facts: Fact, lasting: bool = True) -> Run:
        """Log, then remember ``run``, and return it."""
        return await in_thread(partial(self.keep, run, *facts, lasting=lasting))

    def keep(
        self,
        run: Run,
        *facts: Fact,
        sealed: Callable[[Link], Run] | None = None,
        lasting: bool = True,
    ) -> Run:
        """Log, then remember ``run``, or what ``sealed`` makes of the last link; for a thread."""
        link = self.journal.append(self._records(run, facts))
        told = run if sealed is None else sealed(link)
        self.journal.save(told, lasting=lasting)
        return told

    def _records(self, run: Run, facts: Iterable[Fact]) -> list[Record]:
        at = self.clock.now()
        return [Record(at=at, kind=kind, job=run.job, facts=what) for kind, what in facts]


@dataclass(slots=True)
class Control:
    """What the agent tells a run while it is being carried, and what only this process knows."""

    stop: Stop | None = None
    offered: int = 0  #: the epoch of an offer that came while the run was in hand
    patient: bool = True  #: False: do not wait for what takes long, come back another time
    started: anyio.Event = field(default_factory=anyio.Event)
    running: Run | None = None  #: the run as it was seen to have started
    changed: anyio.Event = field(default_factory=anyio.Event)
    pending_s: float = 0.05  #: how long to wait for a start before looking again; it grows
    force_at: float | None = None  #: monotonic time at which a stop stops asking nicely
    began_at: float | None = None  #: monotonic time at which the command began
    begun: anyio.Event = field(default_factory=anyio.Event)
    over: bool = False  #: the command has ended: nothing of it is published any more
    looking: anyio.Lock = field(default_factory=anyio.Lock)  #: held by who reads the work directory
    disowned: SekishoError | None = None  #: the broker's word that the job is not ours any more
    just_intended: bool = False  #: the intent is recorded, and nothing was submitted since
    just_submitted: bool = False  #: it was submitted, and nobody has looked since
    prepared: int = 0  #: the attempt for which the directories were made
    filled: int = 0  #: the attempt whose inputs this process has seen whole
    full_since: float | None = None  #: monotonic time of the first copy that found no room
    damaged: int = 0  #: how often the copy of what leaves was found damaged

    def cancel(self) -> None:
        """Ask for the run to be stopped on behalf of its submitter."""
        self.stop = Stop.CANCEL
        self.wake()

    def announce(self, run: Run) -> None:
        """Have it told that ``run`` has started."""
        self.running = run
        self.started.set()
        self.begun.set()

    def wake(self) -> None:
        """Make whoever waits for this run look again."""
        self.changed.set()
        self.changed = anyio.Event()


def hold_of(run: Run) -> Hold:
    """Return the name under which this site speaks of ``run``."""
    return Hold(run.job, run.epoch, run.submitter)


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Run a synchronous effect beside the loop. Not abandoned when cancelled: state stays whole."""
    return await to_thread.run_sync(function, *arguments)


async def at_workplace(run: Run, function: Callable[..., T], *arguments: Any) -> T:
    """Run an effect where ``run`` is. To wait for another host keeps no thread of all else."""
    limiter = None if run.venue.host == LOCAL else _limiter()
    return await to_thread.run_sync(function, *arguments, limiter=limiter)


FAR_THREADS: RunVar[CapacityLimiter] = RunVar("workplaces")


def _limiter() -> CapacityLimiter:
    limiter = FAR_THREADS.get(None)
    if limiter is None:
        limiter = CapacityLimiter(_WORKPLACE_THREADS)
        FAR_THREADS.set(limiter)
    return limiter


async def first_of(control: Control, *waits: Callable[[], Awaitable[None]]) -> None:
    """Return when one of ``waits`` returns or when ``control`` is woken, whichever is first."""
    woken = control.changed
    async with together() as group:

        async def one(wait: Callable[[], Awaitable[Any]]) -> None:
            await wait()
            group.cancel_scope.cancel()

        for wait in (woken.wait, *waits):
            group.start_soon(one, wait)


@asynccontextmanager
async def together() -> AsyncIterator[TaskGroup]:
    """Give a task group whose error comes out as itself; a failed sync before any other."""
    try:
        async with anyio.create_task_group() as group:
            yield group
    except BaseExceptionGroup as errors:
        leaves = _leaves(errors)
        raise next((e for e in leaves if isinstance(e, SyncFailed)), leaves[0]) from None


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
