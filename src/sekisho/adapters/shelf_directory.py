"""Chunks in packs: ``root/<hash of the space>/<name>.pack``, and what is in it in ``<name>.list``.

A pack is payloads one behind the other, as they came: chunks of a file mostly lie as in the file.
Rule 1: a list gets its records once their payloads are on disk; it is never ahead of the pack.
Rule 2: one process at a time adds to a pack, up to a size and an age, and to none that is longer
        than its list says: nobody knows what a crash or a disk did there.
Rule 3: packs are dropped as a whole: when they are old, or when a chunk in them is damaged.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import structlog

from sekisho.adapters import durable
from sekisho.domain.errors import IntegrityError, NotFound, TooLarge, Unavailable
from sekisho.site.push import Held
from sekisho.wire.frames import Frame, digest_of

_RECORD: Final = struct.Struct(">32sQI?")  # digest, where, how long, whether packed
_RECORDS_AT_ONCE: Final = 16_384
_LIST: Final = ".list"
_PACK: Final = ".pack"
_PACK_BYTES: Final = 256 << 20
_PACK_CHUNKS: Final = 65_536
_PACK_AGE: Final = timedelta(days=1)
#: For so long after its last chunk, a pack that nobody has touched is not read again to verify it.
_FRESH: Final = timedelta(hours=1)
#: So many packs are tried before a new one is begun: others may be at them.
_TRIED: Final = 8
#: After so much, what was written is synced and listed.
_STEP_BYTES: Final = 32 << 20
_STEP_CHUNKS: Final = 8192
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD: Final = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
#: What the system says that copies nothing by itself, or not between these two files.
_NO_COPY: Final = frozenset({errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
_COPY_BYTES: Final = 1 << 20

log = structlog.get_logger()


class DirectoryShelf:
    """Implements `site.push.ChunkShelf` below ``root``, which is made when it is not there."""

    def __init__(self, root: Path, now: Callable[[], float] = time.time) -> None:
        self._root = root
        self._now = now

    def find(self, space: str, digests: Iterable[str]) -> dict[str, Held]:
        wanted = {bytes.fromhex(digest) for digest in digests}
        found: dict[str, Held] = {}
        with _os_errors():
            for pack in self._packs(space):
                if len(found) == len(wanted):
                    break
                for digest, offset, size, packed in _records(pack.with_suffix(_LIST)):
                    if digest in wanted:
                        held = Held(digest.hex(), str(pack), offset, size, packed)
                        found.setdefault(held.digest, held)
        return found

    def put(self, space: str, frames: Iterable[Frame]) -> None:
        with self._opened(space) as pack:
            for frame in frames:
                frame.opened()
                pack.add(frame)

    def read(self, held: Held) -> Frame:
        with _os_errors(), _found():
            frame = Frame(held.digest, _content(held), packed=held.packed)
            try:
                frame.opened()
            except (IntegrityError, TooLarge) as error:
                log.error("chunk_damaged", digest=held.digest)  # noqa: TRY400 (no traceback of it)
                _drop(Path(held.pack))
                raise IntegrityError("chunk.damaged", digest=held.digest) from error
        return frame

    def copy(self, helds: Sequence[Held], fd: int, offset: int) -> bool:
        with _os_errors(), _found():
            fresh = all(self._fresh(Path(pack)) for pack in {held.pack for held in helds})
            for first, size in _runs(helds):
                if first.packed:
                    _, data = self.read(first).opened()
                    _write_all(fd, data, offset)
                    offset += len(data)
                else:
                    _copy(first, size, fd, offset)
                    offset += size
        return fresh

    def _fresh(self, pack: Path) -> bool:
        """Say whether the pack was added to lately, and not touched since that was listed."""
        listed = pack.with_suffix(_LIST).stat().st_mtime_ns
        lately = abs(self._now() - listed / 1e9) < _FRESH.total_seconds()
        return lately and pack.stat().st_mtime_ns <= listed

    def drop(self, space: str, before: datetime, wanted: Iterable[str] = ()) -> None:
        with _os_errors():
            files = self._place(space).glob("*-*.*")  # a crash may have left half of a pair
            packs = {file.with_suffix(_PACK) for file in files}
            old = sorted(pack for pack in packs if _made_at(pack) + _PACK_AGE < before)
            there = {r[0]: pack for pack in old for r in _records(pack.with_suffix(_LIST))}
            asked = map(bytes.fromhex, wanted) if there else ()
            kept = {there.get(digest) for digest in asked}
            for pack in old:
                if pack not in kept:
                    _drop(pack)

    def free_bytes(self) -> int:
        with _os_errors():
            self._root.mkdir(mode=0o700, exist_ok=True)
            system = os.statvfs(self._root)
        return system.f_bavail * system.f_frsize

    def _packs(self, space: str) -> list[Path]:
        """Return the packs of a space that have a list, the newest first."""
        lists = sorted(self._place(space).glob(f"*{_LIST}"), reverse=True)
        return [file.with_suffix(_PACK) for file in lists]

    def _place(self, space: str) -> Path:
        return self._root / digest_of(space.encode())

    @contextmanager
    def _opened(self, space: str) -> Iterator[_Pack]:
        """Give a pack to add to. What was added before any error is kept."""
        with _os_errors():
            pack = self._growing(space) or self._new(space)
        try:
            yield pack
        finally:
            try:
                pack.keep()
            finally:
                pack.close()

    def _growing(self, space: str) -> _Pack | None:
        since = datetime.fromtimestamp(self._now(), UTC) - _PACK_AGE
        for file in self._packs(space)[:_TRIED]:
            if _made_at(file) > since:
                with suppress(FileNotFoundError, BlockingIOError):
                    pack = _Pack(file, _OLD)
                    if pack.sound and not pack.full:
                        return pack
                    pack.close()
        return None

    def _new(self, space: str) -> _Pack:
        place = self._place(space)
        if not place.is_dir():
            durable.make_directory(self._root)
            durable.make_directory(place)
        name = f"{int(self._now() * 1000):013d}-{secrets.token_hex(4)}"
        pack = _Pack(place / f"{name}{_PACK}", _NEW)
        durable.crashpoint("file.begun")
        try:
            durable.sync_directory(place)
        except BaseException:
            pack.close()
            raise
        return pack


class _Pack:
    """A pack, open for us alone to add to. Raises BlockingIOError when others do."""

    def __init__(self, file: Path, flags: int) -> None:
        self._list = os.open(file.with_suffix(_LIST), flags, 0o600)
        try:
            fcntl.flock(self._list, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._data = os.open(file, flags, 0o600)
        except OSError:
            os.close(self._list)
            raise
        self._records = bytearray()
        self._listed = self._end = os.fstat(self._data).st_size  #: of the pack, in bytes

    @property
    def sound(self) -> bool:
        """Whether the pack is exactly what its list says."""
        size = os.fstat(self._list).st_size
        if size % _RECORD.size or not size:
            return not size and not self._end
        last = os.pread(self._list, _RECORD.size, size - _RECORD.size)
        _, offset, length, _ = _RECORD.unpack(last)
        return bool(offset + length == self._end)

    @property
    def full(self) -> bool:
        records = os.fstat(self._list).st_size // _RECORD.size
        return self._end >= _PACK_BYTES or records >= _PACK_CHUNKS

    def add(self, frame: Frame) -> None:
        """Write a chunk that was looked at."""
        size = len(frame.payload)
        with self._writing(self._end):
            _write_all(self._data, frame.payload)
        self._records += _RECORD.pack(bytes.fromhex(frame.digest), self._end, size, frame.packed)
        self._end += size
        enough = len(self._records) >= _STEP_CHUNKS * _RECORD.size
        if enough or self._end - self._listed >= _STEP_BYTES:
            self.keep()

    def keep(self) -> None:
        """Return when all that was added is durable; raise Unavailable when it was dropped."""
        records, self._records = bytes(self._records), bytearray()  # nothing is tried twice
        if not records:
            return
        with self._writing(self._listed):
            durable.crashpoint("file.written")
            durable.sync_new(self._data)
            durable.crashpoint("file.synced")
            durable.append_to(self._list, records)
        durable.crashpoint("append.kept")
        self._listed = self._end
        if not (os.fstat(self._list).st_nlink and os.fstat(self._data).st_nlink):
            raise Unavailable("storage.unavailable", why="ENOENT")

    @contextmanager
    def _writing(self, end: int) -> Iterator[None]:
        """Give back, when there is no more room, what is behind ``end``."""
        try:
            yield
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._data, end)
            raise durable.translated(error) from error

    def close(self) -> None:
        os.close(self._data)
        os.close(self._list)


@contextmanager
def _os_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise durable.translated(error) from error


@contextmanager
def _found() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound("chunk.not_found") from error


def _made_at(pack: Path) -> datetime:
    """Return when a pack was begun; of what is no name of ours, long ago."""
    digits = pack.stem.partition("-")[0]
    return datetime.fromtimestamp(int(digits) / 1000 if digits.isdigit() else 0, UTC)


def _drop(pack: Path) -> None:
    """Remove a pack. Whoever adds to it hears that when it is to be kept, and comes again."""
    pack.with_suffix(_LIST).unlink(missing_ok=True)
    pack.unlink(missing_ok=True)


def _records(file: Path) -> Iterator[tuple[bytes, int, int, bool]]:
    """Return the whole records of a list; of a dropped one, none."""
    try:
        opened = file.open("rb", buffering=0)
    except FileNotFoundError:
        return
    with opened:
        while data := opened.read(_RECORDS_AT_ONCE * _RECORD.size):
            yield from _RECORD.iter_unpack(data[: len(data) - len(data) % _RECORD.size])


def _runs(helds: Iterable[Held]) -> Iterator[tuple[Held, int]]:
    """Return ``helds`` with those that lie one behind the other taken together, and their sizes."""
    first: Held | None = None
    size = 0
    for held in helds:
        if first is not None and not (held.packed or first.packed) and held.follows(first, size):
            size += held.size
            continue
        if first is not None:
            yield first, size
        first, size = held, held.size
    if first is not None:
        yield first, size


def _content(held: Held) -> bytes:
    fd = os.open(held.pack, _READ)
    try:
        return os.pread(fd, held.size, held.offset)
    finally:
        os.close(fd)


def _copy(first: Held, size: int, fd: int, offset: int) -> None:
    """Copy within the system, where it can. A pack that ends too early leaves the rest as it is."""
    source = os.open(first.pack, _READ)
    try:
        done = 0
        while done < size:
            step = _copied(source, fd, size - done, first.offset + done, offset + done)
            if not step:
                break
            done += step
    finally:
        os.close(source)


def _copied(source: int, fd: int, size: int, start: int, offset: int) -> int:
    try:
        return os.copy_file_range(source, fd, size, start, offset)
    except OSError as error:
        if error.errno not in _NO_COPY:
            raise
    data = os.pread(source, min(size, _COPY_BYTES), start)
    _write_all(fd, data, offset)
    return len(data)


def _write_all(fd: int, data: bytes, offset: int | None = None) -> None:
    rest = memoryview(data)
    while rest:
        written = os.write(fd, rest) if offset is None else os.pwrite(fd, rest, offset)
        rest = rest[written:]
        offset = None if offset is None else offset + written
