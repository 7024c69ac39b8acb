"""Waiting for what other programs do, which make no events for a test: with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(claim: Callable[[], object], what: str = "", *, within_s: float = 240.0) -> None:
    """Return when ``claim`` holds; ``what`` is what did not come about when it never does."""
    end = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < end, what or "it did not come true"
        time.sleep(0.02)
