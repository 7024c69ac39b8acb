"""The copy of what leaves a site: files under the digests of their names, and the tree's list.

Copying, hashing and cutting into chunks are one pass over a descriptor that was checked. Nothing
of the original but bytes, name and the executable bit gets into the copy: no times, no modes, no
attributes. Small files lie in the packs that travel, under their digests. Whatever is read later
is read from the copy and must match the digests, or be sealed (`adapters.seal`).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Self

import msgspec

from sekisho.adapters.lease import leased
from sekisho.adapters.seal import Sealing, Seals
from sekisho.adapters.walk import Folders, Origin, Unsafe, opened_directory, opened_file, origin_of
from sekisho.domain.egress import Fault, Found, Withheld
from sekisho.domain.errors import Corrupt, IntegrityError, UsageError
from sekisho.domain.files import RelPath, keys_above
from sekisho.site.workplace import Why
from sekisho.transfer.cut import as_chunk, cut
from sekisho.transfer.flush import sync_files
from sekisho.transfer.pack import SMALL_BYTES, members, packed
from sekisho.transfer.pipeline import mapped
from sekisho.transfer.tree import Tree, TreeFile, read_tree, remember
from sekisho.wire.envelope import TreeRef
from sekisho.wire.frames import Chunk, digest_of

LIST_NAME: Final = "list"
SEALS_NAME: Final = "seals"
#: The most that leaves of the logs of an array, taken together.
JOINED_BYTES: Final = SMALL_BYTES - 1
LEAST_BYTES: Final = 64
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_WORTH_THREADS_BYTES: Final = 4 << 20
_CONTINUATION: Final = range(0x80, 0xC0)  # bytes of UTF-8 that do not begin a character


@dataclass(frozen=True, slots=True)
class Tail:
    """The last ``max_bytes`` of the log ``name``, to leave as ``path``.

    With ``elements`` it is the logs of an array in one, each behind a line with its number. Each
    has an equal share of the bytes, of which there are at most JOINED_BYTES, but LEAST_BYTES: what
    there is no room for then is left out.
    """

    name: str
    path: RelPath
    max_bytes: int
    elements: int | None = None

    @property
    def names(self) -> list[str]:
        """The files that it is made of, below a job's control directory."""
        if self.elements is None:
            return [self.name]
        return [f"{number}/{self.name}" for number in range(self.elements)]

    @property
    def share(self) -> int:
        """How many bytes of each file may leave."""
        if self.elements is None:
            return self.max_bytes
        heading = len(_heading(self.elements)) + 1
        return max(LEAST_BYTES, min(self.max_bytes, JOINED_BYTES) // self.elements - heading)


def _heading(number: int) -> bytes:
    return f"==> element {number} <==\n".encode()


@dataclass(frozen=True, slots=True)
class _Small:
    """A small file as it was read, to be copied in a pack."""

    path: RelPath
    executable: bool
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)


@dataclass(slots=True)
class Copying:
    """A copy in the making, in the open directory ``staging``."""

    staging: int
    settle_s: float
    files: list[TreeFile] = field(default_factory=list)
    withheld: list[Withheld] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    _packs: set[str] = field(default_factory=set)
    _sealing: Sealing = field(init=False)

    def __post_init__(self) -> None:
        self._sealing = Sealing(self.staging, self.settle_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sealing.drop()

    def add_tails(self, here: int, name: str, tails: Sequence[Tail]) -> None:
        """Copy the ends of logs out of the directory ``name``; a log that is not there is none."""
        with opened_directory(name, here) as control:
            origin = origin_of(control)
            with os.scandir(control) as entries:
                there = {entry.name for entry in entries}
            for tail in tails:
                if tail.elements is not None:
                    self._add_joined(control, tail, origin)
                elif tail.name in there:
                    self._add_tail(control, tail, origin)

    def add_files(self, here: int, name: str, release: Sequence[Found]) -> None:
        """Copy what was released out of the directory ``name``, as far as it is still the same."""
        taken = [file.path for file in self.files]
        colliding = collisions([*taken, *(found.path for found in release)])
        with opened_directory(name, here) as work, Folders(work) as folders:
            origin = origin_of(work)

            def small() -> Iterator[_Small]:
                for found in sorted(release, key=lambda found: found.path.parts):
                    if found.path in colliding:
                        self._refuse(found.path, Why.COLLISION)
                    elif copied := self._add_file(folders, found, origin):
                        yield copied

            for pack in packed(small()):
                self._add_pack(pack)

    def finish(self) -> tuple[Tree, Seals]:
        """Write the list of what was copied, sync the copy, and return the tree, and its seals."""
        seals = self._sealing.seals()
        tree = Tree(tuple(sorted(self.files, key=lambda file: file.path.parts)))
        remember(tree)
        with _created(LIST_NAME, self.staging) as out:
            _write_all(out, msgspec.json.encode(tree.ref()) + b"\n" + tree.text)
        if seals.looks:
            with _created(SEALS_NAME, self.staging) as out:
                _write_all(out, seals.text)
        with os.scandir(self.staging) as entries:
            names = [entry.name for entry in entries]
        sync_files(self.staging, names)
        os.fsync(self.staging)
        return tree, seals

    def _add_file(self, folders: Folders, found: Found, origin: Origin) -> _Small | None:
        """Copy one file, unless it turns out to be unsafe; return it, read, when it is small."""
        try:
            copied = self._copy_of(folders, found, origin)
        except Unsafe as unsafe:
            self._drop(found.path, unsafe.why)
            return None
        if isinstance(copied, _Small):
            return copied
        self.files.append(copied)
        return None

    def _copy_of(self, folders: Folders, found: Found, origin: Origin) -> TreeFile | _Small:
        with folders.opened(found.path, origin, self.settle_s) as (fd, seen):
            if seen.st_size != found.size:
                raise Unsafe(Why.CHANGED)
            copied = self._copied(fd, seen, 0, found.path)
        return copied  # noqa: RET504 after the block, when it is known to be good

    def _add_tail(self, control: int, tail: Tail, origin: Origin) -> None:
        try:
            with opened_file(control, tail.name, origin, self.settle_s) as (fd, seen):
                start = max(0, seen.st_size - tail.max_bytes)
                start += _torn(os.pread(fd, 3, start)) if start else 0
                copied = self._copied(fd, seen, start, tail.path)
        except Unsafe as unsafe:
            self._drop(tail.path, unsafe.why)
            return
        if isinstance(copied, _Small):
            self._add_pack([copied])
        else:
            self.files.append(copied)

    def _add_joined(self, control: int, tail: Tail, origin: Origin) -> None:
        """Copy the ends of the elements' logs; the log of one that wrote nothing is left out."""
        joined = b""
        with Folders(control) as folders:
            for number, name in enumerate(tail.names):
                try:
                    with folders.opened(RelPath.parse(name), origin, self.settle_s) as (fd, seen):
                        data = _end_of(fd, seen.st_size, tail.share)
                except Unsafe as unsafe:
                    if unsafe.why is Why.GONE:  # it was never started
                        continue
                    return self._refuse(tail.path, unsafe.why)
                piece = _heading(number) + data + (b"" if data.endswith(b"\n") else b"\n")
                if data and len(joined) + len(piece) <= min(tail.max_bytes, JOINED_BYTES):
                    joined += piece
        if joined:
            self._add_pack([_Small(tail.path, executable=False, data=joined)])
        else:
            self.files.append(TreeFile(tail.path, executable=False, size=0, chunks=()))
        return None

    def _add_pack(self, pack: Sequence[_Small]) -> None:
        """Copy small files, one behind the other."""
        data = b"".join(small.data for small in pack)
        chunk = Chunk(digest_of(data), len(data))
        if chunk.digest not in self._packs:
            with _created(_pack_of(chunk), self.staging) as out:
                _write_all(out, data)
            self._packs.add(chunk.digest)
        self.files += members([(s.path, s.executable, s.size) for s in pack], chunk)

    def _copied(
        self, fd: int, seen: os.stat_result, start: int, path: RelPath
    ) -> TreeFile | _Small:
        size = seen.st_size - start
        executable = bool(seen.st_mode & 0o100)
        if not size:
            return TreeFile(path, executable, 0, ())
        if size < SMALL_BYTES:
            data = _read_all(fd, size, start)
            if len(data) != size:
                raise Unsafe(Why.CHANGED)
            return _Small(path, executable, data)
        with _created(_name_of(path), self.staging) as out:
            self._sealing.watch(_name_of(path), out)
            chunks = tuple(_chunks(fd, start, size, out))
            os.ftruncate(out, sum(c.size for c in chunks))
        self._sealing.settle()
        if sum(c.size for c in chunks) != size:
            raise Unsafe(Why.CHANGED)
        return TreeFile(path, executable, size, chunks)

    def _drop(self, path: RelPath, why: Why) -> None:
        """Withhold ``path``, and drop what was copied of it."""
        with suppress(FileNotFoundError):
            os.unlink(_name_of(path), dir_fd=self.staging)
        self._refuse(path, why)

    def _refuse(self, path: RelPath, why: Why) -> None:
        """Withhold what was to leave, and say so: the result is not what was decided."""
        self.withheld.append(Withheld(str(path), why.value))
        self.faults.append(Fault("output.changed", (("output", str(path)),)))


def _end_of(fd: int, size: int, most: int) -> bytes:
    """Return the last ``most`` bytes, without a character that began before them."""
    start = max(0, size - most)
    start += _torn(os.pread(fd, 3, start)) if start else 0
    data = _read_all(fd, size - start, start)
    if len(data) != size - start:
        raise Unsafe(Why.CHANGED)
    return data


def collisions(paths: Collection[RelPath]) -> set[RelPath]:
    """Return those of ``paths`` that cannot lie side by side everywhere: case, file inside file."""
    keys = {path: path.key for path in paths}
    files = Counter(keys[path] for path in paths)
    above = {parts: keys_above(parts) for parts in {path.parts[:-1] for path in paths}}
    folders = {key for each in above.values() for key in each}
    inside = {parts for parts, each in above.items() if any(key in files for key in each)}
    return {
        path
        for path, key in keys.items()
        if files[key] > 1 or key in folders or path.parts[:-1] in inside
    }


def _chunks(fd: int, start: int, size: int, out: int) -> Iterator[Chunk]:
    """Copy at most ``size`` bytes, however the file grows; return their chunks."""

    def digested(piece: memoryview | int) -> tuple[Chunk, memoryview | int]:
        return as_chunk(piece), piece

    pieces = cut(fd, start, size)
    large = size >= _WORTH_THREADS_BYTES
    offset = 0
    for chunk, piece in mapped(digested, pieces) if large else map(digested, pieces):
        if chunk.hole or isinstance(piece, int):
            os.lseek(out, chunk.size, os.SEEK_CUR)
        else:
            _write_all(out, piece)
            if large:  # the disk begins with it: less is left to wait for at the end
                os.posix_fadvise(out, offset, chunk.size, os.POSIX_FADV_DONTNEED)
        offset += chunk.size
        yield chunk


def _torn(head: bytes) -> int:
    """Return how many bytes at the beginning belong to a character that began before them."""
    return next((n for n, byte in enumerate(head) if byte not in _CONTINUATION), len(head))


def read_list(staging: int) -> Tree:
    """Return the tree that was copied into ``staging``; raise Corrupt."""
    with _reopened(LIST_NAME, staging) as fd:
        head, _, text = _read_all(fd, os.fstat(fd).st_size, 0).partition(b"\n")
    try:
        return read_tree(text, msgspec.json.decode(head, type=TreeRef))
    except (UsageError, IntegrityError, msgspec.MsgspecError) as error:
        raise Corrupt("site.staging_changed") from error


def read_seals(staging: int) -> Seals:
    """Return the seals of the copy in ``staging``; of one that has none, none."""
    with suppress(Corrupt), _reopened(SEALS_NAME, staging) as fd:
        return Seals.read(_read_all(fd, os.fstat(fd).st_size, 0))
    return Seals({})


@contextmanager
def _created(name: str, staging: int) -> Iterator[int]:
    """Make a file that was not there."""
    fd = os.open(name, _NEW, 0o600, dir_fd=staging)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _reopened(name: str, staging: int) -> Iterator[int]:
    try:
        fd = os.open(name, _OLD, dir_fd=staging)
    except FileNotFoundError as error:
        raise Corrupt("site.staging_changed") from error
    try:
        yield fd
    finally:
        os.close(fd)


def _pack_of(chunk: Chunk) -> str:
    return f"pack-{chunk.digest}"


def _name_of(path: RelPath) -> str:
    return digest_of(str(path).encode())


def _read_all(fd: int, length: int, offset: int) -> bytes:
    """Return ``length`` bytes, or fewer when the file ends before."""
    pieces = []
    while length and (piece := os.pread(fd, length, offset)):
        pieces.append(piece)
        length, offset = length - len(piece), offset + len(piece)
    return b"".join(pieces)


def _write_all(fd: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


@dataclass(frozen=True, slots=True)
class Copy:
    """A finished copy: where each chunk is, what is sealed, and how its directory is opened."""

    places: Mapping[Chunk, tuple[str, int]]
    seals: Seals
    opened: Callable[[], AbstractContextManager[int]]

    @classmethod
    def of(
        cls, tree: Tree, seals: Seals, opened: Callable[[], AbstractContextManager[int]]
    ) -> Copy:
        places: dict[Chunk, tuple[str, int]] = {}
        for file in tree.files:
            if file.size < SMALL_BYTES:
                places.update((chunk, (_pack_of(chunk), 0)) for chunk in file.chunks)
                continue
            offset = 0
            for chunk in file.chunks:
                places.setdefault(chunk, (_name_of(file.path), offset))
                offset += chunk.size
        return cls(places, seals, opened)

    def read(self, chunk: Chunk) -> bytes:
        """Return the bytes of ``chunk``; raise Corrupt when the copy does not hold them."""
        name, offset = self.places[chunk]
        with self.opened() as staging, _reopened(name, staging) as fd:
            held = self.seals.hold(name, fd)
            data = _read_all(fd, chunk.size, offset)
            if held and leased(fd):
                return data
        if digest_of(data) != chunk.digest:
            raise Corrupt("site.staging_changed")
        return data
