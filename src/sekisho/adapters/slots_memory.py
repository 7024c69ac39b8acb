"""Slots in memory. What shares a ``table`` is one site; each instance is one of its processes."""

from __future__ import annotations

from sekisho.site.slots import NO_LIMIT


class MemorySlots:
    """Implements `site.slots.Slots`."""

    def __init__(self, table: set[tuple[str, str, int]] | None = None) -> None:
        self._table = set() if table is None else table

    def take(self, kind: str, job: str, limit: int = NO_LIMIT) -> bool:
        slot = (kind, job, id(self))
        if slot not in self._table:
            if sum(taken == kind for taken, _, _ in self._table) >= limit:
                return False
            self._table.add(slot)
        return True

    def leave(self, kind: str, job: str) -> None:
        self._table.discard((kind, job, id(self)))

    def others(self, kind: str) -> int:
        return sum(taken == kind and who != id(self) for taken, _, who in self._table)
