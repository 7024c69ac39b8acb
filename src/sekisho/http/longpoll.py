"""Waiting for news without asking in a loop, and ending the wait when the broker stops."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from sekisho.broker.ports import Wakeups
from sekisho.domain.clock import Clock

A = TypeVar("A")
_DRAIN_TOPIC: Final = "drain"
_JITTER: Final = 0.1
_DICE: Final = random.SystemRandom()


@dataclass(slots=True)
class LongPoll:
    """Waits on topics. After `drain` every wait, present and future, ends at once."""

    wakeups: Wakeups
    clock: Clock
    draining: bool = False

    def drain(self) -> None:
        """Let everybody who waits go; callable from any thread."""
        self.draining = True
        self.wakeups.notify(_DRAIN_TOPIC)

    async def until(
        self,
        news: Callable[[A], bool],
        look: Callable[[], Awaitable[A]],
        *,
        topics: Sequence[str],
        wait_s: float,
    ) -> A:
        """Return what ``look`` saw when it was ``news``, or last after ``wait_s`` ± 10 %.

        Listening begins before the first look, so nothing that happens in between is missed.
        """
        end = self.clock.monotonic() + wait_s * _DICE.uniform(1 - _JITTER, 1 + _JITTER)
        with self.wakeups.listen([*topics, _DRAIN_TOPIC]) as notices:
            seen = await look()
            while not news(seen) and not self.draining:
                left = end - self.clock.monotonic()
                if left <= 0 or not await notices.wait(left):
                    break
                if not self.draining:
                    seen = await look()
        return seen
