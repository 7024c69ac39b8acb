"""One look at a batch system for everybody who waits for it, ever more rarely while nothing moves.

A batch system serves many sites' worth of people: however many jobs are in hand, it is asked once
in an interval. A look counts for those who were known before it began; who comes later gets the
next one, and never an older.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import anyio

from sekisho.domain.errors import SekishoError
from sekisho.site.scheduler import Observation, Pending, Running, Ticket

T = TypeVar("T")
_GROWTH: Final = 1.5
#: Whoever has not been asked about for so long is not looked at any more.
_FORGET_S: Final = 900.0


@dataclass(slots=True)
class _Asked:
    since: float
    last: float


@dataclass(frozen=True, slots=True)
class Sight(Generic[T]):
    """What one look saw. ``began``: the loop's time in seconds, before its first question."""

    began: float
    seen: T


class Board(Generic[T]):
    """Shares looks among tasks. ``look`` is given the tickets in hand and says what there is."""

    def __init__(
        self,
        look: Callable[[Collection[Ticket]], Awaitable[T]],
        *,
        poll_s: float,
        poll_max_s: float,
    ) -> None:
        self._look = look
        self._poll_s = poll_s
        self._poll_max_s = poll_max_s
        self._interval = poll_s
        self._asked: dict[Ticket, _Asked] = {}
        self._sight: Sight[T] | None = None
        self._fault: Sight[SekishoError] | None = None
        self._turn = anyio.Lock()

    async def sight(self, tickets: Collection[Ticket]) -> T:
        """Return what is to be seen of ``tickets``: a look that is due, or the last one."""
        now = anyio.current_time()
        oldest = now - self._interval
        for ticket in tickets:
            asked = self._asked.setdefault(ticket, _Asked(now, now))
            asked.last = now
            oldest = max(oldest, asked.since)
        return await self._since(oldest)

    async def next_sight(self, timeout_s: float) -> T | None:
        """Wait for the next look that is due; None: it is not within ``timeout_s``."""
        began = self._latest()
        wait = began + self._interval - anyio.current_time()
        if wait >= timeout_s:
            await anyio.sleep(timeout_s)
            return None
        await anyio.sleep(max(0.0, wait))
        return await self._since(began + self._interval)

    async def changed(
        self,
        tickets: Collection[Ticket],
        timeout_s: float,
        facts: Callable[[T], object],
        over: Callable[[T], bool],
    ) -> None:
        """Return when a look has other ``facts`` than the first, or the first shows what is over.

        As `Scheduler.changed`: after ``timeout_s`` at the latest, and then only without tickets.
        """
        if not tickets:
            await anyio.sleep(timeout_s)
            return
        with anyio.move_on_after(timeout_s):
            look = await self.sight(tickets)
            if over(look):
                return
            before = facts(look)
            while True:
                later = await self.next_sight(timeout_s)
                if later is not None and facts(later) != before:
                    return

    def settled(self, told: Mapping[Ticket, Observation]) -> list[Ticket]:
        """Stop looking at what is over, as ``told``, and return it."""
        over = [t for t, seen in told.items() if not isinstance(seen, Pending | Running)]
        for ticket in over:
            self._asked.pop(ticket, None)
        return over

    def hurry(self) -> None:
        """Something is about to change: look again soon."""
        self._interval = self._poll_s

    async def _since(self, moment: float) -> T:
        while True:
            async with self._turn:
                if self._sight is not None and self._sight.began >= moment:
                    return self._sight.seen
                if self._fault is not None and self._fault.began >= moment:
                    raise self._fault.seen
                await self._pause()
                await self._renew()

    async def _pause(self) -> None:
        wait = self._latest() + self._poll_s - anyio.current_time()
        if wait > 0:
            await anyio.sleep(wait)

    def _latest(self) -> float:
        tries = [each.began for each in (self._sight, self._fault) if each is not None]
        return max(tries, default=anyio.current_time() - self._poll_max_s)

    async def _renew(self) -> None:
        began = anyio.current_time()
        self._asked = {t: a for t, a in self._asked.items() if began - a.last < _FORGET_S}
        try:
            seen = await self._look(tuple(self._asked))
        except SekishoError as error:
            self._fault = Sight(began, error)
            self._slow_down()
            return
        if self._sight is not None and self._sight.seen == seen:
            self._slow_down()
        else:
            self._interval = self._poll_s
        self._sight = Sight(began, seen)

    def _slow_down(self) -> None:
        self._interval = min(self._interval * _GROWTH, self._poll_max_s)
