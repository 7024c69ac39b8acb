"""Files of this machine as a tree: which there are, what they hold, and reading a chunk again.

On the side that sends, symbolic links are followed: what the user sees is what travels. A file is
read twice, for its digests and to send it; if it changed between, nothing wrong is sent.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sekisho.domain.errors import IntegrityError, UsageError
from sekisho.domain.files import RelPath
from sekisho.domain.limits import MAX_DEPTH, MAX_FILES
from sekisho.transfer.cut import cut
from sekisho.transfer.pipeline import mapped
from sekisho.transfer.remembered import Forgetful, Look, Remembered
from sekisho.transfer.tree import Tree, TreeFile
from sekisho.wire.frames import Chunk, digest_of

_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_WORTH_THREADS_BYTES: Final = 4 << 20
#: A smaller file is read as fast as it is looked up.
_WORTH_REMEMBERING_BYTES: Final = 256 << 10
_FORGETFUL: Final = Forgetful()


@dataclass(frozen=True, slots=True, order=True)
class Source:
    """A local file, and the name under which it travels."""

    path: RelPath
    file: Path


def scan(entries: Iterable[tuple[str, Path]]) -> list[Source]:
    """Return the files of ``entries`` (name, file or directory), sorted by name.

    A directory's files get its name in front, or none if the name is ``""``. Raise UsageError for
    what is not there, is no regular file, or has a name that may not travel.
    """
    found: list[Source] = []
    for name, place in entries:
        parts = tuple(name.split("/")) if name else ()
        for source in _walk(parts, place, frozenset()):
            found.append(source)
            if len(found) > MAX_FILES:
                raise UsageError("tree.invalid", why="count")
    return sorted(found)


def _walk(
    parts: tuple[str, ...], place: Path, above: frozenset[tuple[int, int]]
) -> Iterator[Source]:
    seen = _stat(place)
    if stat.S_ISREG(seen.st_mode):
        yield Source(RelPath(parts or (place.name,)), place)
        return
    if not stat.S_ISDIR(seen.st_mode):
        raise UsageError("input.not_a_file", input=str(place))
    here = (seen.st_dev, seen.st_ino)
    if here in above or len(above) > MAX_DEPTH:
        raise UsageError("input.loop", input=str(place))
    for child in sorted(place.iterdir()):
        yield from _walk((*parts, child.name), child, above | {here})


def _stat(place: Path) -> os.stat_result:
    try:
        return place.stat()
    except (OSError, ValueError) as error:
        raise UsageError("input.not_found", input=str(place)) from error


class LocalTree:
    """A tree of local files, with its chunks at hand. Holds the list, never the contents."""

    def __init__(self, sources: Iterable[Source], remembered: Remembered = _FORGETFUL) -> None:
        self._at: dict[str, tuple[Source, int]] = {}
        self._remembered = remembered
        self.sources = sorted(sources)
        self.tree = Tree(tuple(self._digested(source) for source in self.sources))

    def _digested(self, source: Source) -> TreeFile:
        fd = _open(source)
        try:
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                raise UsageError("input.not_a_file", input=str(source.file))
            chunks = self._chunks(fd, source, Look.of(before))
        finally:
            os.close(fd)
        self._note(source, chunks)
        executable = bool(before.st_mode & stat.S_IXUSR)
        return TreeFile(source.path, executable, before.st_size, chunks)

    def _chunks(self, fd: int, source: Source, look: Look) -> tuple[Chunk, ...]:
        """Return the chunks of a file, remembered or read; what changes meanwhile is refused."""
        worth = look.size >= _WORTH_REMEMBERING_BYTES
        if worth and (known := self._remembered.recall(look)) and _whole(known, look):
            return tuple(known)
        now = time.time_ns()
        chunks = tuple(_hashed(cut(fd, 0, look.size), look.size))
        if Look.of(os.fstat(fd)) != look or not _whole(chunks, look):
            raise _changed(source)
        if worth and look.settled(now):
            self._remembered.keep(look, chunks)
        return chunks

    def _note(self, source: Source, chunks: Iterable[Chunk]) -> None:
        offset = 0
        for chunk in chunks:
            self._at.setdefault(chunk.digest, (source, offset))
            offset += chunk.size

    def read(self, chunk: Chunk) -> bytes:
        """Return the bytes of ``chunk``; raise IntegrityError(`input.changed`) if they changed."""
        source, offset = self._at[chunk.digest]
        fd = _open(source)
        try:
            data = os.pread(fd, chunk.size, offset)
            if digest_of(data) != chunk.digest:
                self._remembered.forget(Look.of(os.fstat(fd)))
                raise _changed(source)
        finally:
            os.close(fd)
        return data


def _whole(chunks: Sequence[Chunk], look: Look) -> bool:
    return sum(chunk.size for chunk in chunks) == look.size


def _hashed(pieces: Iterable[memoryview], size: int) -> Iterator[Chunk]:
    """Return the chunks that ``pieces`` are; of a small file without the pains of threads."""
    if size < _WORTH_THREADS_BYTES:
        return map(_chunk, pieces)
    return mapped(_chunk, pieces)


def _chunk(data: memoryview) -> Chunk:
    return Chunk(digest_of(data), len(data))


def _open(source: Source) -> int:
    try:
        return os.open(source.file, _FLAGS)
    except OSError as error:
        raise UsageError("input.not_readable", input=str(source.file)) from error


def _changed(source: Source) -> IntegrityError:
    return IntegrityError("input.changed", input=str(source.path))
