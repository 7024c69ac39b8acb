"""Drafts whose inputs are being sent just now, for agents who want to begin with them early.

A hint and nothing more: kept in memory, bounded, and forgotten at a restart of the broker. A job
that is not in here is offered, accepted and staged like any other.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field
from threading import Lock
from typing import Final

#: Who begins more than so many at once waits for the ordinary way with the oldest.
_MOST: Final = 4096


def arrival_topic(job_id: str) -> str:
    """Return the topic that tells that more of a job's inputs has arrived."""
    return f"arrival:{job_id}"


@dataclass(slots=True)
class _Draft:
    site: str
    instance: str | None = None  #: the agent that was told
    stored: int = 0  #: bytes, since it was noted
    wanted: float = math.inf  #: that many of them are worth a notice

    def due(self) -> bool:
        """Say, once, that what is wanted is there."""
        if self.stored < self.wanted:
            return False
        self.wanted = math.inf
        return True


@dataclass(slots=True)
class Arriving:
    """Safe to share between threads."""

    _drafts: OrderedDict[str, _Draft] = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    def begun(self, site: str, job: str) -> None:
        """Note that inputs of a draft of ``site`` are about to come."""
        with self._lock:
            self._drafts.setdefault(job, _Draft(site))
            while len(self._drafts) > _MOST:
                self._drafts.popitem(last=False)

    def stored(self, job: str, size: int) -> bool:
        """Note that so many bytes of ``job`` were stored; say whether somebody waits for that."""
        with self._lock:
            if (draft := self._drafts.get(job)) is None:
                return False
            draft.stored += size
            return draft.due()

    def so_far(self, job: str) -> int:
        """Return how many bytes were stored; ask before you look at what is there."""
        with self._lock:
            draft = self._drafts.get(job)
            return 0 if draft is None else draft.stored

    def wanted(self, job: str, stored: int) -> bool:
        """Have it told when so many bytes were stored; say whether they have been by now."""
        with self._lock:
            if (draft := self._drafts.get(job)) is None:
                return False
            draft.wanted = min(draft.wanted, stored)
            return draft.due()

    def of(self, site: str, instance: str, *, heard: Collection[str]) -> list[str]:
        """Return the drafts of ``site``, oldest first, that this agent may be told of.

        None of those that it has heard of, or that another agent was told of.
        """
        with self._lock:
            return [
                job
                for job, draft in self._drafts.items()
                if draft.site == site and job not in heard and draft.instance in (None, instance)
            ]

    def told(self, job: str, instance: str) -> None:
        """Note that ``instance`` is told of the draft: nobody else is."""
        with self._lock:
            if draft := self._drafts.get(job):
                draft.instance = instance

    def over(self, job: str) -> None:
        """Forget what is no draft any more."""
        with self._lock:
            self._drafts.pop(job, None)
