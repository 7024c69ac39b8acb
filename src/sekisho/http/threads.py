"""Where blocking work runs: a bounded number of worker threads, beside the event loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread

P = ParamSpec("P")
R = TypeVar("R")


class Threads:
    """Runs synchronous calls for the event loop."""

    def __init__(self, number: int = 32) -> None:
        self._limiter = CapacityLimiter(number)

    async def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return what ``work`` returns; it is not interrupted when the caller is cancelled."""
        return await to_thread.run_sync(partial(work, *args, **kwargs), limiter=self._limiter)
