"""Files that were right when they were looked at, and that nobody can have written to since.

The kernel vouches for it: we hold a lease on each, which ends before it is opened for writing.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from sekisho.adapters.lease import leased

_TRUSTED_SECONDS: Final = 3600.0
#: So many files are held open, those that were asked for last.
_MOST_HELD: Final = 64
Key = tuple[str, str]  #: a folder, a name in it


@dataclass(frozen=True, slots=True)
class _Held:
    """An open file that was right at the monotonic time ``at``, with our lease on it."""

    fd: int
    at: float


@dataclass(slots=True)
class Vouched:
    """The files of one stock, for an hour each. Safe for threads."""

    monotonic: Callable[[], float] = time.monotonic
    _change: threading.Lock = field(default_factory=threading.Lock)
    _held: OrderedDict[Key, _Held] = field(default_factory=OrderedDict)

    def hold(self, key: Key, fd: int) -> None:
        """Remember that what is open at ``fd`` is right, and leased for as long as we do."""
        with self._change:
            self._let_go(key)
            self._held[key] = _Held(os.dup(fd), self.monotonic())
            while len(self._held) > _MOST_HELD:
                self._let_go(next(iter(self._held)))

    def find(self, key: Key) -> int | None:
        """Return a descriptor, the caller's, of what was right and nobody can have changed."""
        with self._change:
            held = self._held.get(key)
            if held is None:
                return None
            if not leased(held.fd) or self.monotonic() - held.at > _TRUSTED_SECONDS:
                self._let_go(key)
                return None
            self._held.move_to_end(key)
            return os.dup(held.fd)

    def drop(self, key: Key) -> None:
        """Let go of one file."""
        with self._change:
            self._let_go(key)

    def give_way(self) -> None:
        """Let go of what somebody wants to write to, who waits for that; never waits itself."""
        if self._change.acquire(blocking=False):
            try:
                for key in [key for key, held in self._held.items() if not leased(held.fd)]:
                    self._let_go(key)
            finally:
                self._change.release()

    def close(self) -> None:
        """Let go of everything."""
        with self._change:
            for key in list(self._held):
                self._let_go(key)

    def _let_go(self, key: Key) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            os.close(held.fd)
