"""How far a transfer has come, for whoever shows it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with bytes done and bytes in all; ``done`` never falls and ends equal to ``total``."""

    def __call__(self, done: int, total: int, /) -> None: ...


def unseen(_done: int, _total: int, /) -> None:
    """Show nothing."""


class Gauge:
    """Counts up to a total and tells a `Progress` of it."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._done = 0
        self._total = total
        self._progress = progress
        progress(0, total)

    def add(self, size: int) -> None:
        self._done += size
        self._progress(self._done, self._total)
