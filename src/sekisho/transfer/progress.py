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


class Pace:
    """How fast it has gone since the last look."""

    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None

    def at(self, done: int, now_s: float) -> float | None:
        """Return bytes per second since the last look; None at the first, or when nothing came."""
        last, self._last = self._last, (done, now_s)
        if last is None or done <= last[0] or now_s <= last[1]:
            return None
        return (done - last[0]) / (now_s - last[1])
