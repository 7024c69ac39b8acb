"""A stock in a dictionary, for tests."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from sekisho.domain.errors import Conflict
from sekisho.domain.files import RelPath
from sekisho.site.workplace import Place
from sekisho.transfer.content import holds
from sekisho.transfer.place import walked
from sekisho.transfer.tree import TreeFile
from sekisho.wire.frames import Chunk

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAKE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_Key = tuple[str, bool, tuple[Chunk, ...]]  #: a submitter, and what a job sees of a content


class MemoryStock:
    """Implements `site.stock.Stock` up to ``max_bytes``; every job gets bytes of its own."""

    def __init__(self, max_bytes: int = 1 << 30, *, clones: bool = True) -> None:
        self.clones = clones
        self._kept: dict[_Key, bytes] = {}
        self._room = max_bytes

    def has(self, submitter: str, files: Sequence[TreeFile]) -> set[RelPath]:
        return {file.path for file in files if _key(submitter, file) in self._kept}

    def lend(
        self,
        submitter: str,
        place: Place,
        files: Sequence[TreeFile],
        *,
        writable: bool,
        lasting: bool,
    ) -> set[RelPath]:
        lent = set()
        here = self.has(submitter, files) if self.clones or not writable else set()
        for file in files:
            with suppress(OSError, Conflict):
                if file.path in here:
                    data, mode = self._kept[_key(submitter, file)], _mode(file, writable=writable)
                    _put(place, file, data, mode, lasting=lasting)
                    lent.add(file.path)
        return lent

    def keep(
        self, submitter: str, place: Place, files: Sequence[TreeFile], *, writable: bool
    ) -> None:
        for file in files if self.clones or not writable else ():
            with suppress(OSError, Conflict):
                data = _taken(place, file, writable=writable)
                key = _key(submitter, file)
                if data is not None and key not in self._kept and len(data) <= self._room:
                    self._kept[key] = data
                    self._room -= len(data)


def _key(submitter: str, file: TreeFile) -> _Key:
    return submitter, file.executable, file.chunks


def _mode(file: TreeFile, *, writable: bool) -> int:
    return (0o111 if file.executable else 0) | (0o644 if writable else 0o444)


def _put(place: Place, file: TreeFile, data: bytes, mode: int, *, lasting: bool) -> None:
    here = _folder(place, file, make=True)
    try:
        with suppress(FileNotFoundError):
            os.unlink(file.path.parts[-1], dir_fd=here)
        fd = os.open(file.path.parts[-1], _MAKE, mode, dir_fd=here)
        with os.fdopen(fd, "wb") as opened:
            opened.write(data)
            opened.flush()
            if lasting:
                os.fsync(fd)
    finally:
        os.close(here)
    for depth in range(len(file.path.parts) if lasting else 0):
        _sync(Path(place.input_dir, *file.path.parts[:depth]))


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _taken(place: Place, file: TreeFile, *, writable: bool) -> bytes | None:
    """Give a file its mode; return its bytes if they are right."""
    here = _folder(place, file, make=False)
    try:
        fd = os.open(file.path.parts[-1], _READ, dir_fd=here)
    finally:
        os.close(here)
    with os.fdopen(fd, "rb") as opened:
        os.fchmod(fd, _mode(file, writable=writable))
        right = not file.shared and holds(fd, file)
        opened.seek(0)
        return opened.read() if right else None


def _folder(place: Place, file: TreeFile, *, make: bool) -> int:
    work = os.open(place.input_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return walked(work, file.path.parts[:-1], make=make)
    finally:
        os.close(work)
