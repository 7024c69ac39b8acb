"""Files of this machine as a tree: which there are, what they hold, and reading a chunk again.

On the side that sends, symbolic links are followed: what the user sees is what travels. What is
read a second time, to be sent, and has changed since the first, the other side refuses.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sekisho.domain.errors import IntegrityError, UsageError
from sekisho.domain.files import RelPath
from sekisho.domain.limits import MAX_DEPTH, MAX_FILES
from sekisho.transfer.cut import as_chunk, cut
from sekisho.transfer.pack import SMALL_BYTES, members, packed
from sekisho.transfer.pipeline import mapped
from sekisho.transfer.progress import Gauge, Progress, unseen
from sekisho.transfer.remembered import WORTH_BYTES, Forgetful, Look, Remembered
from sekisho.transfer.tree import Tree, TreeFile
from sekisho.wire.frames import Chunk, digest_of

_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_WORTH_THREADS_BYTES: Final = 4 << 20
_FORGETFUL: Final = Forgetful()
#: A chunk, and its bytes: of a hole, or of what is remembered, none.
_Piece = tuple[Chunk, bytes | memoryview]
#: Hears of a chunk, of its content, and of what gives that again.
Found = Callable[[Chunk, bytes | memoryview, Callable[[Chunk], bytes]], None]


def _unheard(
    _chunk: Chunk, _data: bytes | memoryview, _content: Callable[[Chunk], bytes], /
) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Source:
    """A local file, and the name under which it travels."""

    path: RelPath
    place: str

    @property
    def file(self) -> Path:
        return Path(self.place)


def scan(entries: Iterable[tuple[str, Path]]) -> list[Source]:
    """Return the files of ``entries`` (name, file or directory), sorted by name.

    A directory's files get its name in front, or none if the name is ``""``. Raise UsageError for
    what is not there or cannot be read, is no regular file, or has a name that may not travel.
    """
    found: list[Source] = []
    for name, place in entries:
        parts = tuple(name.split("/")) if name else ()
        _look(found, parts, str(place), frozenset())
    return _sorted(found)


def _look(
    found: list[Source], parts: tuple[str, ...], place: str, above: frozenset[tuple[int, int]]
) -> None:
    """Add what is at ``place``, followed if it is a link, to ``found``."""
    seen = _stat(place)
    if stat.S_ISREG(seen.st_mode):
        _add(found, parts or (Path(place).name,), place)
    elif not stat.S_ISDIR(seen.st_mode):
        raise UsageError("input.not_a_file", input=place)
    else:
        here = (seen.st_dev, seen.st_ino)
        if here in above or len(above) > MAX_DEPTH:
            raise UsageError("input.loop", input=place)
        for entry in _entries(place):
            if entry.is_file(follow_symlinks=False):
                _add(found, (*parts, entry.name), entry.path)
            else:
                _look(found, (*parts, entry.name), entry.path, above | {here})


def _add(found: list[Source], parts: tuple[str, ...], place: str) -> None:
    found.append(Source(RelPath(parts), place))
    if len(found) > MAX_FILES:
        raise UsageError("tree.invalid", why="count")


def _entries(place: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(place) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UsageError("input.not_readable", input=place) from error


def _stat(place: str) -> os.stat_result:
    try:
        return Path(place).stat()
    except PermissionError as error:
        raise UsageError("input.not_readable", input=place) from error
    except (OSError, ValueError) as error:
        raise UsageError("input.not_found", input=place) from error


def _size(sources: Iterable[Source]) -> int:
    return sum(_stat(source.place).st_size for source in sources)


def _sorted(sources: Iterable[Source]) -> list[Source]:
    return sorted(sources, key=lambda source: source.path.parts)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where bytes of a chunk are: ``size`` of them, from ``offset`` on, as of ``ctime_ns``."""

    source: Source
    offset: int
    size: int
    ctime_ns: int

    def read(self) -> bytes:
        fd = _open(self.source)
        try:
            return os.pread(fd, self.size, self.offset)
        finally:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class _Small:
    """A small file as it was read."""

    source: Source
    executable: bool
    ctime_ns: int
    data: bytes

    @property
    def path(self) -> RelPath:
        return self.source.path

    @property
    def size(self) -> int:
        return len(self.data)


class LocalTree:
    """A tree of local files, with its chunks at hand. Holds the list, never the contents.

    ``reading`` is told how far the files are read, once: what is remembered counts at once.
    ``found`` is told of each chunk that was read, when `content` can give it.
    """

    def __init__(
        self,
        sources: Iterable[Source],
        remembered: Remembered = _FORGETFUL,
        reading: Progress = unseen,
        found: Found = _unheard,
    ) -> None:
        self._found = found
        self._at: dict[str, tuple[_Place, ...]] = {}
        self._remembered = remembered
        self.sources = _sorted(sources)
        self._read = Gauge(0 if reading is unseen else _size(self.sources), reading)
        files: list[TreeFile] = []
        for pack, chunk, data in mapped(_hashed_pack, packed(self._small(files))):
            places = tuple(_Place(s.source, 0, s.size, s.ctime_ns) for s in pack)
            self._at.setdefault(chunk.digest, places)
            self._read.add(chunk.size)
            found(chunk, data, self.content)
            files += members([(s.path, s.executable, s.size) for s in pack], chunk)
        files.sort(key=lambda file: file.path.parts)
        self.tree = Tree(tuple(files))

    def _small(self, others: list[TreeFile]) -> Iterator[_Small]:
        """Return the small files, read; add those that are not, or are empty, to ``others``."""
        for source in self.sources:
            fd = _open(source)
            try:
                before = os.fstat(fd)
                if not stat.S_ISREG(before.st_mode):
                    raise UsageError("input.not_a_file", input=source.place)
                executable = bool(before.st_mode & stat.S_IXUSR)
                if 0 < before.st_size < SMALL_BYTES:
                    data = _whole_of(fd, source, before)
                    yield _Small(source, executable, before.st_ctime_ns, data)
                else:
                    others.append(self._digested(fd, source, before, executable=executable))
            finally:
                os.close(fd)

    def _digested(
        self, fd: int, source: Source, before: os.stat_result, *, executable: bool
    ) -> TreeFile:
        look = Look.of(before)
        chunks = self._recalled(source, look) or self._chunks(fd, source, look)
        return TreeFile(source.path, executable, before.st_size, chunks)

    def _recalled(self, source: Source, look: Look) -> tuple[Chunk, ...]:
        """Return the chunks of a file that is remembered, or none."""
        worth = look.size >= WORTH_BYTES
        if not (worth and (known := self._remembered.recall(look)) and _whole(known, look)):
            return ()
        self._read.add(look.size)
        return tuple(chunk for chunk, _ in self._placed(((c, b"") for c in known), source, look))

    def _chunks(self, fd: int, source: Source, look: Look) -> tuple[Chunk, ...]:
        """Return the chunks of a file, read now; what changes meanwhile is refused."""
        worth = look.size >= WORTH_BYTES
        now = time.time_ns()
        hashed = _hashed(cut(fd, 0, look.size), look.size)
        chunks = tuple(self._told(self._placed(hashed, source, look)))
        if Look.at(fd) != look or not _whole(chunks, look):
            raise _changed(source)
        if worth and look.settled(now):
            self._remembered.keep(look, chunks)
        return chunks

    def _placed(self, pieces: Iterable[_Piece], source: Source, look: Look) -> Iterator[_Piece]:
        """Give ``pieces`` on, knowing where in the file each of them is."""
        offset = 0
        for chunk, data in pieces:
            place = _Place(source, offset, chunk.size, look.ctime_ns)
            self._at.setdefault(chunk.digest, (place,))
            offset += chunk.size
            yield chunk, data

    def _told(self, pieces: Iterable[_Piece]) -> Iterator[Chunk]:
        for chunk, data in pieces:
            self._read.add(chunk.size)
            self._found(chunk, data, self.content)
            yield chunk

    def read(self, chunk: Chunk) -> bytes:
        """Return the bytes of ``chunk``; raise IntegrityError(`input.changed`) if they changed."""
        data = self.content(chunk)
        if digest_of(data) != chunk.digest:
            places = self._at[chunk.digest]
            changed = [p.source for p in places if self._forgotten(p)] or [places[0].source]
            raise _changed(changed[0])
        return data

    def content(self, chunk: Chunk) -> bytes:
        """Return the bytes of ``chunk`` unverified, for whoever verifies them: every ChunkPort."""
        return b"".join(place.read() for place in self._at[chunk.digest])

    def check(self) -> None:
        """Read everything again; raise IntegrityError(`input.changed`) for what changed."""
        for chunk in self.tree.chunks():
            self.read(chunk)

    def _forgotten(self, place: _Place) -> bool:
        """Remember nothing of a file; say whether it shows that it changed."""
        fd = _open(place.source)
        try:
            seen = os.fstat(fd)
        finally:
            os.close(fd)
        self._remembered.forget(Look.of(seen))
        return seen.st_ctime_ns != place.ctime_ns


def _whole_of(fd: int, source: Source, before: os.stat_result) -> bytes:
    data = os.pread(fd, before.st_size + 1, 0)
    after = os.fstat(fd)
    same = before.st_mtime_ns == after.st_mtime_ns and before.st_ctime_ns == after.st_ctime_ns
    if not len(data) == before.st_size == after.st_size or not same:
        raise _changed(source)
    return data


def _hashed_pack(pack: Sequence[_Small]) -> tuple[Sequence[_Small], Chunk, bytes]:
    data = b"".join(small.data for small in pack)
    return pack, Chunk(digest_of(data), len(data)), data


def _whole(chunks: Sequence[Chunk], look: Look) -> bool:
    return sum(chunk.size for chunk in chunks) == look.size


def _hashed(pieces: Iterable[memoryview | int], size: int) -> Iterator[_Piece]:
    """Return the chunks that ``pieces`` are; of a small file without the pains of threads."""
    if size < _WORTH_THREADS_BYTES:
        return map(_as_piece, pieces)
    return mapped(_as_piece, pieces)


def _as_piece(piece: memoryview | int) -> _Piece:
    return as_chunk(piece), b"" if isinstance(piece, int) else piece


def _open(source: Source) -> int:
    try:
        return os.open(source.place, _FLAGS)
    except OSError as error:
        raise UsageError("input.not_readable", input=source.place) from error


def _changed(source: Source) -> IntegrityError:
    return IntegrityError("input.changed", input=str(source.path))
