"""When each agent was heard last: a site may have several, and a silent one may hold jobs.

Kept in memory only: after a restart of the broker nothing is known of an agent until it speaks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock


@dataclass(slots=True)
class Heard:
    """Safe to share between threads."""

    _last: dict[tuple[str, str], datetime] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def hear(self, site: str, instance: str, at: datetime) -> None:
        """Note that an agent speaks."""
        with self._lock:
            self._last[site, instance] = at

    def last(self, site: str, instance: str) -> datetime | None:
        """Return when an agent was heard last; None: never, or so long ago that it is forgotten."""
        with self._lock:
            return self._last.get((site, instance))

    def forget(self, before: datetime) -> None:
        """Forget the agents that were not heard since ``before``."""
        with self._lock:
            for agent in [agent for agent, at in self._last.items() if at < before]:
                del self._last[agent]
