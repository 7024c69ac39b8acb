"""A folder of half-arrived files, and the step that gives them their names.

It lies in the directory of the result, so that a rename suffices; it is ours alone (0700), holds
files under numbers and is locked while in use. `publish` walks to each name by held directory
descriptors without following a link, so nothing outside of the directory can change.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from sekisho.domain.errors import Conflict, StorageFull, SyncFailed, Unavailable
from sekisho.domain.files import RelPath
from sekisho.domain.limits import CHUNK_BYTES, MAX_CHUNK_BYTES
from sekisho.transfer.pipeline import mapped
from sekisho.transfer.tree import Tree, TreeFile
from sekisho.wire.frames import Chunk, digest_of

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_WORTH_THREADS: Final = 16
#: At a time: a file system makes one write of those that wait together.
_SYNCS: Final = 8
#: A whole chunk of nothing but zeros is a hole: neither fetched nor written.
_HOLES: Final = frozenset(
    Chunk(digest_of(bytes(size)), size) for size in (MAX_CHUNK_BYTES, CHUNK_BYTES)
)


Give = Callable[[RelPath, int, str], bool]


def nothing(_path: RelPath, _folder: int, _name: str) -> bool:
    """Give no file."""
    return False


class Part:
    """The unfinished form of one tree in one directory. A context manager; keeps what arrived."""

    def __init__(self, root: int, folder: int, name: str, tree: Tree, give: Give = nothing) -> None:
        self._root = root
        self._folder = folder
        self._name = name
        self._give = give
        self._files = tree.files
        self._made: set[int] = set()
        self._places: dict[Chunk, list[tuple[int, int]]] = {}
        for number, file in enumerate(tree.files):
            for chunk, offset in _offsets(file):
                self._places.setdefault(chunk, []).append((number, offset))

    @classmethod
    def beside(cls, directory: Path, tree: Tree, give: Give = nothing) -> Part:
        """Open, or make, the part folder of ``tree`` in ``directory``.

        A file that is not there is asked of ``give`` first, and then looked at like any other.
        """
        name = f".sekisho-{tree.digest[:16]}.part"
        with _translated():
            directory.mkdir(parents=True, exist_ok=True)
            root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return cls(root, _locked(root, name), name, tree, give)
        except BaseException:
            os.close(root)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._folder)
        os.close(self._root)

    def lacking(self) -> list[Chunk]:
        """Return the chunks that are not, or not rightly, on disk; make room for them."""
        with _translated():
            wrong = dict.fromkeys(
                chunk for number in range(len(self._files)) for chunk in self._wrong(number)
            )
        return list(wrong)

    def bytes_of(self, chunks: Iterable[Chunk]) -> int:
        """Return how many bytes of files ``chunks`` make up."""
        return sum(c.size * len(self._places[c]) for c in chunks)

    def free_bytes(self) -> int:
        room = os.fstatvfs(self._folder)
        return room.f_bavail * room.f_frsize

    def write(self, chunk: Chunk, data: bytes) -> int:
        """Write a verified chunk wherever it belongs; return the bytes written."""
        with _translated():
            for number, offset in self._places[chunk]:
                fd = os.open(str(number), _FILE, dir_fd=self._folder)
                try:
                    _write_all(fd, data, offset)
                finally:
                    os.close(fd)
        return self.bytes_of((chunk,))

    def publish(self) -> None:
        """Sync everything, give every file its name, and remove the folder."""
        with _translated():
            side_by_side = min(_SYNCS, len(self._made))
            syncs = mapped(
                self._sync, self._made, threads=side_by_side, ahead=side_by_side, settle=True
            )
            for _ in syncs:
                pass
            for parts, numbers in self._by_folder().items():
                here = _walk(self._root, parts)
                try:
                    for number in numbers:
                        _rename(number, self._folder, self._files[number].path, here)
                    os.fsync(here)
                finally:
                    os.close(here)
            os.rmdir(self._name, dir_fd=self._root)
            os.fsync(self._root)

    def _sync(self, number: int) -> None:
        """Sync a part; when that fails nobody knows what the disk holds, so it is given up."""
        fd = os.open(str(number), _FILE, dir_fd=self._folder)
        try:
            os.fsync(fd)
        except OSError as error:
            os.unlink(str(number), dir_fd=self._folder)
            raise SyncFailed from error
        finally:
            os.close(fd)

    def _by_folder(self) -> dict[tuple[str, ...], list[int]]:
        """Return which parts belong into which folder; every folder above is there too."""
        folders: dict[tuple[str, ...], list[int]] = {}
        for number in sorted(self._made):
            parts = self._files[number].path.parts[:-1]
            for depth in range(len(parts)):
                folders.setdefault(parts[:depth], [])
            folders.setdefault(parts, []).append(number)
        return folders

    def _wrong(self, number: int) -> Sequence[Chunk]:
        """Return what is wrong with one file, in its part or, when it has none, in its place."""
        file = self._files[number]
        fd = self._open_part(number)
        if fd is None:
            if self._published(file):
                return ()
            self._make(number)
            if self._given(number):
                return self._wrong(number)
            return [c for c, _ in _offsets(file) if c not in _HOLES]
        self._made.add(number)
        try:
            os.ftruncate(fd, file.size)
            return _damaged(fd, file)
        finally:
            os.close(fd)

    def _open_part(self, number: int) -> int | None:
        try:
            return os.open(str(number), _FILE, dir_fd=self._folder)
        except FileNotFoundError:
            return None

    def _make(self, number: int) -> None:
        """Make the part of a file; the kernel takes the user's umask from its mode."""
        mode = 0o755 if self._files[number].executable else 0o644
        fd = os.open(str(number), _FILE | os.O_CREAT | os.O_EXCL, mode, dir_fd=self._folder)
        try:
            os.ftruncate(fd, self._files[number].size)
        finally:
            os.close(fd)
        self._made.add(number)

    def _given(self, number: int) -> bool:
        """Take the file from ``give``, with the mode of the part that it replaces, and no past."""
        made = os.stat(str(number), dir_fd=self._folder)
        if not self._give(self._files[number].path, self._folder, str(number)):
            return False
        fd = os.open(str(number), _FILE, dir_fd=self._folder)
        try:
            os.fchmod(fd, stat.S_IMODE(made.st_mode))
            os.utime(fd)
        finally:
            os.close(fd)
        return True

    def _published(self, file: TreeFile) -> bool:
        """Say whether the file is in its place already, as after a crash between two renames."""
        try:
            here = _walk(self._root, file.path.parts[:-1], make=False)
        except (FileNotFoundError, Conflict):
            return False
        try:
            fd = os.open(file.path.parts[-1], _FILE, dir_fd=here)
        except OSError:
            return False
        finally:
            os.close(here)
        try:
            seen = os.fstat(fd)
            same = stat.S_ISREG(seen.st_mode) and seen.st_nlink == 1
            same = same and bool(seen.st_mode & stat.S_IXUSR) == file.executable
            return same and seen.st_size == file.size and not _damaged(fd, file)
        finally:
            os.close(fd)


def _locked(root: int, name: str) -> int:
    with _translated():
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=root)
        folder = os.open(name, _FOLDER, dir_fd=root)
    seen = os.fstat(folder)
    if seen.st_uid != os.geteuid() or seen.st_mode & 0o077:
        os.close(folder)
        raise Conflict("fetch.blocked", path=name)  # somebody else's: what is in it may be a trap
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(folder)
        raise Conflict("fetch.busy") from error
    return folder


def _offsets(file: TreeFile) -> Iterator[tuple[Chunk, int]]:
    offset = 0
    for chunk in file.chunks:
        yield chunk, offset
        offset += chunk.size


def _damaged(fd: int, file: TreeFile) -> list[Chunk]:
    """Return the chunks that ``fd`` does not hold where it should."""

    def wrong(place: tuple[Chunk, int]) -> Chunk | None:
        chunk, offset = place
        return None if digest_of(os.pread(fd, chunk.size, offset)) == chunk.digest else chunk

    places = _offsets(file)
    looks = (
        map(wrong, places)
        if len(file.chunks) < _WORTH_THREADS
        else mapped(wrong, places, settle=True)
    )
    return [chunk for chunk in looks if chunk is not None]


def _write_all(fd: int, data: bytes, offset: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, offset)
        rest, offset = rest[written:], offset + written


def _walk(root: int, parts: tuple[str, ...], *, make: bool = True) -> int:
    """Return a descriptor of the folder ``parts`` below ``root``, which the caller closes."""
    here = os.dup(root)
    for part in parts:
        try:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=here)
            below = os.open(part, _FOLDER, dir_fd=here)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise Conflict("fetch.blocked", path="/".join(parts)) from error
            raise
        finally:
            os.close(here)
        here = below
    return here


def _rename(number: int, folder: int, path: RelPath, here: int) -> None:
    try:
        os.rename(str(number), path.parts[-1], src_dir_fd=folder, dst_dir_fd=here)
    except (IsADirectoryError, NotADirectoryError) as error:
        raise Conflict("fetch.blocked", path=str(path)) from error


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull("fetch.disk_full") from error
        raise Unavailable("fetch.io", why=errno.errorcode.get(error.errno or 0, "")) from error
