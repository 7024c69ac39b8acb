"""An event loop whose time leaps to the next thing that is due, so that a day passes in no time.

Worker threads are waited for: time stands still while one of them works.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn, TypeVar

import anyio
import structlog
from anyio import CapacityLimiter, to_thread

T = TypeVar("T")
START: Final = datetime(2026, 4, 1, 9, tzinfo=UTC)
_STUCK_SECONDS: Final = 30.0


class VirtualClock:
    """Implements `domain.clock.Clock`. It goes on where it was in the next `simulate`."""

    def __init__(self, start: datetime = START) -> None:
        self._start = start
        self.passed = 0.0
        self.crashes: list[str] = []  #: tracebacks of faults of our own that a boundary caught
        self.crashes_expected = False

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        return self.passed

    def heard(self, _: Any, __: str, event: MutableMapping[str, Any]) -> NoReturn:
        """Keep what a log event says of a fault of our own."""
        if "exception" in event:
            self.crashes.append(event["exception"])
        raise structlog.DropEvent

    def jump(self, by: timedelta) -> None:
        """Set the time of day wrong by ``by``."""
        self._start += by


class _LeapingSelector(selectors.DefaultSelector):
    """Passes the time of ``clock`` instead of waiting, unless a thread of ``limiter`` works."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock
        self.limiter: CapacityLimiter | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.limiter is not None and self.limiter.borrowed_tokens and timeout != 0:
            if not (ready := super().select(_STUCK_SECONDS)):
                raise RuntimeError("a thread is stuck")
            return ready
        if (ready := super().select(0)) or timeout == 0:
            return ready
        if timeout is None:
            raise RuntimeError("everybody waits, and nothing will ever happen")
        self._clock.passed += timeout
        return []


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self, clock: VirtualClock, selector: _LeapingSelector) -> None:
        self._virtual = clock
        super().__init__(selector)

    def time(self) -> float:
        return self._virtual.passed


def simulate(clock: VirtualClock, story: Callable[[], Awaitable[T]], within_s: float = 1e7) -> T:
    """Run ``story`` in the time of ``clock``; fail when it takes longer than ``within_s`` of it."""
    structlog.configure(processors=[structlog.processors.format_exc_info, clock.heard])
    selector = _LeapingSelector(clock)

    async def told() -> T:
        selector.limiter = to_thread.current_default_thread_limiter()
        selector.limiter.total_tokens = 1  # one effect at a time, so that every run is the same
        with anyio.fail_after(within_s):
            return await story()

    answer = anyio.run(
        told, backend_options={"loop_factory": lambda: _VirtualLoop(clock, selector)}
    )
    if clock.crashes and not clock.crashes_expected:
        raise AssertionError(clock.crashes[0])
    return answer
