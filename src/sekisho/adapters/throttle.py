"""Keeping below a bandwidth that somebody allowed, over all connections of one line."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

#: What may go at once after a pause, in seconds of the allowed rate.
_BURST_SECONDS: Final = 0.25
_PIECE_BYTES: Final = 64 << 10
_BYTES_PER_MBIT: Final = 125_000


class Throttle:
    """Lets ``mbit_s`` through, in one direction. None: everything, at once."""

    def __init__(
        self,
        mbit_s: float | None,
        wait: Callable[[float], object] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = None if mbit_s is None else mbit_s * _BYTES_PER_MBIT
        self._wait = wait
        self._monotonic = monotonic
        self._guard = threading.Lock()
        self._free_at = 0.0  #: when all that was let through so far has had its time

    def pass_on(self, size: int) -> None:
        """Return when ``size`` bytes more may go."""
        if self._rate is None:
            return
        with self._guard:
            now = self._monotonic()
            begin = max(self._free_at, now - _BURST_SECONDS)
            self._free_at = begin + size / self._rate
            pause = self._free_at - now
        if pause > 0:
            self._wait(pause)

    def pieces(self, body: bytes) -> bytes | Iterator[bytes]:
        """Return ``body`` in pieces that come no faster than allowed."""
        return body if self._rate is None else self._slowly(memoryview(body))

    def _slowly(self, body: memoryview) -> Iterator[bytes]:
        for start in range(0, len(body), _PIECE_BYTES):
            piece = bytes(body[start : start + _PIECE_BYTES])
            self.pass_on(len(piece))
            yield piece

    def counted(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Return ``pieces``, asked for no faster than allowed."""
        for piece in pieces:
            self.pass_on(len(piece))
            yield piece
