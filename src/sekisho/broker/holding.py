"""What would be held once something more is declared, for whoever says whether it may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What jobs hold of the broker: how many have not ended, and the bytes kept for all."""

    live_jobs: int
    stored_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """How many bytes would be held by a job, its site and its submitter."""

    job: int
    site: int
    submitter: int


#: Hears what would be held, and raises if it may not be.
Allow = Callable[[Holding], None]

#: Hears what the site, then what the submitter of a new job would hold, and raises if they may not.
AllowJob = Callable[[Usage, Usage], None]


def anything(*_: object) -> None:
    """Allow it."""
