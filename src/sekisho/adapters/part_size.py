"""How long a body the way to a broker bears: short at first, longer for as long as it goes well.

Every proxy has its limit, and few tell it. What was once too long is not tried again, and what was
never borne is tried on one connection, while the others keep to what was.
"""

from __future__ import annotations

import threading
from typing import Final

from sekisho.domain.limits import MAX_PART_BYTES, MIB

LONGEST_BYTES: Final = 4 * MIB
#: Longer parts gain nothing where one takes longer than this, and a cut would lose more.
_QUICK_SECONDS: Final = 1.0
#: So many parts are begun before a length is tried again of which nothing was heard: a refusal may
#: come slowly, while other parts go on.
_PARTS_BETWEEN: Final = 64


class PartSize:
    """The length of the next part. Safe to share between threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._now = MAX_PART_BYTES
        self._most = LONGEST_BYTES
        self._borne = 0
        self._usual = 0  #: how long parts beside the one on trial may become
        self._waiting = 0  #: until a length that was never borne may be tried again

    @property
    def bytes(self) -> int:
        return self._now

    def begin(self) -> int:
        """Return how long a part that is begun now may become."""
        with self._guard:
            if self._now <= max(self._borne, MAX_PART_BYTES):
                return self._now
            if self._waiting:
                self._waiting -= 1
                return self._usual
            self._usual = max(self._borne, MAX_PART_BYTES)
            self._waiting = _PARTS_BETWEEN
            return self._now

    def bore(self, size: int, seconds: float) -> None:
        """Note that a body of ``size`` bytes got through."""
        with self._guard:
            self._borne = max(size, self._borne)
            if size > self._usual:  # the one on trial: the others say nothing of it
                self._waiting = 0
            if seconds < _QUICK_SECONDS and size > self._now // 2:
                self._now = min(2 * self._now, self._most)

    def refused(self, size: int) -> None:
        """Note that ``size`` bytes were too long for something on the way."""
        with self._guard:
            self._most = self._borne if 0 < self._borne < size else size // 2
            self._now = min(self._now, self._most)

    def cut(self, size: int) -> None:
        """Note that the line broke under ``size`` bytes: by chance, or as too long."""
        with self._guard:
            if size > max(self._borne, MAX_PART_BYTES):
                self._most = max(self._borne, MAX_PART_BYTES)
            self._now = min(self._most, MAX_PART_BYTES)
