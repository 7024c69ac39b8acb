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

    def __init__(self, max_bytes: int = 1 << 30) -> None:
        self._kept: dict[_Key, bytes] = {}
        self._room = max_bytes

    def has(self, submitter: str, files: Sequence[TreeFile]) -> set[RelPath]:
        return {file.path for file in files if _key(submitter, file) in self._kept}

    def lend(
        self, submitter: str, place: Place, files: Sequence[TreeFile], *, lasting: bool
    ) -> set[RelPath]:
        lent = set()
        here = self.has(submitter, files)
        for file in files:
            with suppress(OSError, Conflict):
                if file.path in here:
                    _put(place, file, self._kept[_key(submitter, file)], lasting=lasting)
                    lent.add(file.path)
        return lent

    def keep(self, submitter: str, place: Place, files: Sequence[TreeFile]) -> None:
        for file in files:
            with suppress(OSError, Conflict):
                data = _taken(place, file)
                key = _key(submitter, file)
                if data is not None and key not in self._kept and len(data) <= self._room:
                    self._kept[key] = data
                    self._room -= len(data)


def _key(submitter: str, file: TreeFile) -> _Key:
    return submitter, file.executable, file.chunks


def _mode(file: TreeFile) -> int:
    return 0o555 if file.executable else 0o444


def _put(place: Place, file: TreeFile, data: bytes, *, lasting: bool) -> None:
    here = _folder(place, file, make=True)
    try:
        with suppress(FileNotFoundError):
            os.unlink(file.path.parts[-1], dir_fd=here)
        fd = os.open(file.path.parts[-1], _MAKE, _mode(file), dir_fd=here)
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


def _taken(place: Place, file: TreeFile) -> bytes | None:
    """Take the write permission from a file; return its bytes if they are right."""
    here = _folder(place, file, make=False)
    try:
        fd = os.open(file.path.parts[-1], _READ, dir_fd=here)
    finally:
        os.close(here)
    with os.fdopen(fd, "rb") as opened:
        os.fchmod(fd, _mode(file))
        right = not file.shared and holds(fd, file)
        opened.seek(0)
        return opened.read() if right else None


def _folder(place: Place, file: TreeFile, *, make: bool) -> int:
    work = os.open(place.input_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return walked(work, file.path.parts[:-1], make=make)
    finally:
        os.close(work)
