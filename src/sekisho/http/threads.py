"""Where blocking work runs: a bounded number of worker threads, beside the event loop.

To hand a call to a thread and back costs several times what a look at a database on this machine
does, so such a look is taken on the loop itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread

P = ParamSpec("P")
R = TypeVar("R")


class Threads:
    """Runs synchronous calls for the event loop."""

    def __init__(self, number: int = 32, *, at_hand: bool = False) -> None:
        self._limiter = CapacityLimiter(number)
        self._at_hand = at_hand  #: see `sekisho.broker.ports.Store`

    async def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return what ``work`` returns; it is not interrupted when the caller is cancelled."""
        return await to_thread.run_sync(partial(work, *args, **kwargs), limiter=self._limiter)

    async def look(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return what ``work`` returns, which only reads, and a few rows of the store at most."""
        if self._at_hand:
            return work(*args, **kwargs)
        return await self.run(work, *args, **kwargs)
