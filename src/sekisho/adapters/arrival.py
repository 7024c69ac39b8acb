"""Large files hashed while a program still brings them, so that little is left to do at the end.

Rule 1: the program writes one file after the other into a folder of its own, each from its
        beginning to its end, and moves it to its place, as rsync does with `--temp-dir`.
Rule 2: what was read counts for the very file that was read, as it looks when the program has
        ended. Of any other nothing is known: whoever wants to know reads it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from sekisho.transfer.cut import as_chunk, cut_solid
from sekisho.transfer.holes import extents
from sekisho.transfer.remembered import Look
from sekisho.wire.frames import Chunk

#: A smaller file is there before anybody could follow it.
WORTH_BYTES: Final = 8 << 20
#: So many are followed: each stays open until all have come.
_MOST: Final = 128
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_PAUSE_S: Final = 0.01
_SUFFIX: Final = len(".XXXXXX")


class Arrivals:
    """`Remembered` of the files that pass through ``folder`` within its `with` block.

    ``coming`` are their names, without folders, and their sizes.
    """

    def __init__(self, folder: Path, coming: Iterable[tuple[str, int]]) -> None:
        self._folder = folder
        self._sizes: dict[str, set[int]] = {}
        for name, size in coming:
            self._sizes.setdefault(name, set()).add(size)
        self._read: dict[int, tuple[int, tuple[Chunk, ...]]] = {}  #: by descriptors, open till then
        self._known: dict[Look, Sequence[Chunk]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow_all, name="arrivals", daemon=True)

    def __enter__(self) -> Self:
        if any(size >= WORTH_BYTES for sizes in self._sizes.values() for size in sizes):
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()
        for fd, (size, chunks) in self._read.items():
            with suppress(OSError):
                self._note(fd, size, chunks)
            os.close(fd)
        self._read.clear()

    def recall(self, look: Look) -> Sequence[Chunk] | None:
        return self._known.get(look)

    def keep(self, look: Look, chunks: Sequence[Chunk]) -> None:
        self._known[look] = chunks

    def forget(self, look: Look) -> None:
        self._known.pop(look, None)

    def _note(self, fd: int, size: int, chunks: tuple[Chunk, ...]) -> None:
        """Remember a file that became what it was to become, and has its place."""
        seen = os.fstat(fd)
        whole = sum(chunk.size for chunk in chunks) == seen.st_size == size
        if whole and seen.st_nlink == 1 and _solid(fd, size):
            self.keep(Look.of(seen), chunks)

    def _follow_all(self) -> None:
        last = -1
        while not self._over.wait(_PAUSE_S) and len(self._read) < _MOST:
            with suppress(OSError):  # it has its place already, and is read there
                for file in self._folder.iterdir():
                    last = self._follow(file, last)

    def _follow(self, file: Path, last: int) -> int:
        """Read a passing ``file`` if it is a large one, and not the ``last``; return its inode."""
        sizes = self._sizes.get(name_of(file.name), set())
        if len(sizes) != 1 or (size := max(sizes)) < WORTH_BYTES:
            return last
        fd = os.open(file, _FLAGS)
        inode = os.fstat(fd).st_ino
        if inode == last:
            os.close(fd)
            return last
        self._read[fd] = (size, ())
        pieces = cut_solid(size, lambda offset, length: self._grown(fd, offset, length))
        self._read[fd] = (size, tuple(map(as_chunk, pieces)))
        return inode

    def _grown(self, fd: int, offset: int, length: int) -> bytes:
        """Return ``length`` bytes when they are there, or what there is when no more will come."""
        while not self._over.is_set() and os.fstat(fd).st_size < offset + length:
            self._over.wait(_PAUSE_S)
        data = os.pread(fd, length, offset)
        os.posix_fadvise(fd, offset, len(data), os.POSIX_FADV_DONTNEED)  # the disk begins with it
        return data


def name_of(passing: str) -> str:
    """Return the name of the file that rsync keeps under the name ``passing``: `NAME.XXXXXX`."""
    return passing[:-_SUFFIX]


def _solid(fd: int, size: int) -> bool:
    """Say whether the file has no holes: they would be known as such to whoever reads it."""
    return list(extents(fd, 0, size)) == [(0, size)]
