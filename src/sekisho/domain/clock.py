"""The clock that services are given. The domain itself receives times, never a clock."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """What time it is, and how much of it has passed. Tests give one that they move by hand."""

    def now(self) -> datetime:
        """Return the time of day: aware, in UTC. It may jump; never measure durations with it."""
        ...

    def monotonic(self) -> float:
        """Return seconds that only grow, from an arbitrary beginning."""
        ...
