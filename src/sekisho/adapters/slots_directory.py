"""Slots as locked bytes of a file, one file for each kind: `<state>/slots/<kind>`.

The system gives a lock back when the process that holds it ends, however it ends: nothing has to be
cleaned up, and no crash leaves a slot taken. The locks are those of an open file, so that a process
may have several instances, and forking gives nothing away that the next program keeps.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sekisho.adapters.durable import translated
from sekisho.site.slots import NO_LIMIT

_LOCK: Final = struct.Struct("@hhqqi0q")  # struct flock: type, whence, start, length, process
#: Held while slots are counted and one is taken.
_GUARD: Final = NO_LIMIT
_FILE: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class DirectorySlots:
    """Implements `site.slots.Slots` below ``root``, which is made when it is not there."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: dict[str, int] = {}
        self._held: dict[tuple[str, str], int] = {}  #: the byte of each kind and job
        self._turn = threading.Lock()

    def close(self) -> None:
        """Give everything back."""
        for fd in self._files.values():
            os.close(fd)
        self._files.clear()
        self._held.clear()

    def take(self, kind: str, job: str, limit: int = NO_LIMIT) -> bool:
        if (kind, job) in self._held:
            return True
        with self._guarded(kind) as fd:
            mine = {at for (other, _), at in self._held.items() if other == kind}
            theirs = set(_locked(fd, 0, _GUARD))
            if len(mine) + len(theirs) >= limit:
                return False
            free = next(at for at in range(limit) if at not in mine and at not in theirs)
            _set(fd, fcntl.F_WRLCK, free)
            self._held[kind, job] = free
        return True

    def leave(self, kind: str, job: str) -> None:
        with self._turn:
            at = self._held.pop((kind, job), None)
        if at is not None:
            _set(self._files[kind], fcntl.F_UNLCK, at)

    def others(self, kind: str) -> int:
        with self._guarded(kind) as fd:
            return sum(1 for _ in _locked(fd, 0, _GUARD))

    @contextmanager
    def _guarded(self, kind: str) -> Iterator[int]:
        """Give the file of ``kind``, for us alone: nobody else counts or takes meanwhile."""
        try:
            with self._turn:
                fd = self._opened(kind)
                _set(fd, fcntl.F_WRLCK, _GUARD, wait=True)
                try:
                    yield fd
                finally:
                    _set(fd, fcntl.F_UNLCK, _GUARD)
        except OSError as error:
            raise translated(error) from error

    def _opened(self, kind: str) -> int:
        if kind not in self._files:
            self._root.mkdir(mode=0o700, exist_ok=True)
            name = f"command-{kind}" if kind else "in-hand"
            self._files[kind] = os.open(self._root / name, _FILE, 0o600)
        return self._files[kind]


def _set(fd: int, how: int, at: int, *, wait: bool = False) -> None:
    verb = fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK
    fcntl.fcntl(fd, verb, _LOCK.pack(how, os.SEEK_SET, at, 1, 0))


def _locked(fd: int, start: int, end: int) -> Iterator[int]:
    """Return the bytes of a range that others have locked; neighbours may be told as one lock."""
    if start >= end:
        return
    asked = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, end - start, 0)
    how, _, first, length, _ = _LOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))
    if how == fcntl.F_UNLCK:
        return
    first, after = max(first, start), min(first + length, end)
    yield from _locked(fd, start, first)
    yield from range(first, after)
    yield from _locked(fd, after, end)
