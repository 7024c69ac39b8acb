"""What would be held once something more is declared, for whoever says whether it may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """How many bytes would be held by a job, its site and its submitter."""

    job: int
    site: int
    submitter: int


#: Hears what would be held, and raises if it may not be.
Allow = Callable[[Holding], None]


def anything(_: Holding) -> None:
    """Allow it."""
