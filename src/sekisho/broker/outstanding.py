"""Offers that were made and not accepted yet, by the agent that they were made to.

An agent asks for the next thing only when it has dealt with what it was given. So an offer that it
does not name when it asks again did not arrive, or was not taken: it need not run out, and the job
can be offered anew at once. Kept in memory only: after a restart of the broker, offers run out.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from threading import Lock


@dataclass(slots=True)
class Outstanding:
    """Safe to share between threads."""

    _made: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def made(self, site: str, instance: str, job: str, epoch: int) -> None:
        """Note an offer."""
        with self._lock:
            self._made.setdefault((site, instance), {})[job] = epoch

    def accepted(self, site: str, instance: str, job: str) -> None:
        """Forget an offer: it arrived."""
        with self._lock:
            self._drop(site, instance, [job])

    def unheard(self, site: str, instance: str, holds: Collection[str]) -> list[tuple[str, int]]:
        """Forget and return the offers, with their epochs, of which the agent does not speak."""
        with self._lock:
            made = self._made.get((site, instance), {})
            gone = [(job, epoch) for job, epoch in made.items() if job not in holds]
            self._drop(site, instance, [job for job, _ in gone])
        return gone

    def _drop(self, site: str, instance: str, jobs: list[str]) -> None:
        if (made := self._made.get((site, instance))) is None:
            return
        for job in jobs:
            made.pop(job, None)
        if not made:
            del self._made[site, instance]
