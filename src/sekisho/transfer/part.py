"""A folder of half-arrived files, and the step that gives them their names.

It lies in the directory of the result, so that a rename suffices; it is ours alone (0700), holds
files under numbers and is locked while in use. `publish` walks to each name by held directory
descriptors without following a link, so nothing outside of the directory can change.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from sekisho.domain.errors import Conflict, SyncFailed
from sekisho.domain.files import RelPath
from sekisho.transfer.content import damaged, holes, offsets
from sekisho.transfer.earlier import NOTHING_EARLIER, Earlier, folder_of
from sekisho.transfer.flush import at_once, flush, sync_files
from sekisho.transfer.holes import empty
from sekisho.transfer.place import locked, no_room, rename, translated, walked
from sekisho.transfer.port import Given
from sekisho.transfer.tree import Tree, TreeFile
from sekisho.wire.frames import Chunk, digest_of

_FILE: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
#: The disk begins with pieces of this size at once: less is left to do when all has come.
_WORTH_BEGINNING: Final = 64 << 10

Give = Callable[[RelPath, int, str], Given]


def nothing(_path: RelPath, _folder: int, _name: str) -> Given:
    """Give no file."""
    return Given.NOTHING


class _Span(NamedTuple):
    """``size`` bytes of a chunk, from ``start`` on, are at ``offset`` of a file."""

    number: int
    offset: int
    start: int
    size: int


class Part:
    """The unfinished form of one tree in one directory. A context manager; keeps what arrived."""

    def __init__(self, root: int, folder: int, name: str, tree: Tree, give: Give = nothing) -> None:
        self._root = root
        self._folder = folder
        self._name = name
        self._give = give
        self._earlier = NOTHING_EARLIER
        self._files = tree.files
        self._packs = tree.packs
        with os.scandir(folder) as entries:
            self._there = {int(entry.name) for entry in entries if entry.name.isdecimal()}
        self._owed: set[Chunk] = set()  #: that were not there, and are not written yet
        self._names: dict[tuple[str, ...], frozenset[str]] = {}
        self._spans: dict[Chunk, list[_Span]] = {}
        for number, file in enumerate(tree.files):
            for chunk, offset in offsets(file):
                span = _Span(number, offset, file.offset, min(chunk.size, file.size))
                self._spans.setdefault(chunk, []).append(span)

    @classmethod
    def beside(cls, directory: Path, tree: Tree, give: Give = nothing) -> Part:
        """Open, or make, the part folder of ``tree`` in ``directory``.

        A file that is not there is asked of ``give`` first, and then looked at like any other.
        """
        name = folder_of(tree)
        with translated():
            directory.mkdir(parents=True, exist_ok=True)
            root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return cls(root, locked(root, name), name, tree, give)
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

    def believe(self, earlier: Earlier) -> None:
        """Take its word for what nobody has touched since: that need not be read."""
        self._earlier = earlier

    def lacking(self) -> list[Chunk]:
        """Return the chunks that are not, or not rightly, on disk; make room for them."""
        with translated():
            mine = self._earlier.untouched(self._folder)
            packs = [c for c, numbers in self._packs if self._wrong_pack(c, numbers)]
            alone = [n for n, file in enumerate(self._files) if not file.shared]
            wrong = dict.fromkeys([*packs, *(c for n in alone for c in self._owing(n, mine))])
        self._owed = set(wrong)
        return list(wrong)

    def earlier(self) -> Earlier:
        """Return what is here by now, for whoever opens it again in this very process."""
        larger = [number for number in self._there if not self._files[number].shared]
        return Earlier.of(self._folder, larger, self._spans.keys() - self._owed)

    def _owing(self, number: int, mine: Container[int]) -> Iterable[Chunk]:
        """Return what is wrong with one file; what was ``mine`` all along is not read again."""
        if number not in mine:
            return self._wrong(number)
        sound = self._earlier.chunks
        return (chunk for chunk, _ in offsets(self._files[number]) if chunk not in sound)

    def bytes_of(self, chunks: Iterable[Chunk]) -> int:
        """Return how many bytes of files ``chunks`` make up."""
        return sum(span.size for c in chunks for span in self._spans[c])

    def free_bytes(self) -> int:
        room = os.fstatvfs(self._folder)
        return room.f_bavail * room.f_frsize

    def write(self, chunk: Chunk, data: bytes) -> int:
        """Write a verified chunk wherever it belongs; return the bytes written."""
        with translated(), memoryview(data) as view:
            for span in self._spans[chunk]:
                fd = self._opened(span.number)
                try:
                    _write_all(fd, view[span.start : span.start + span.size], span.offset)
                finally:
                    os.close(fd)
        self._owed.discard(chunk)
        return self.bytes_of((chunk,))

    @property
    def whole(self) -> bool:
        """Whether nothing is lacking any more.

        Nothing is read back: what was written was verified before, and only we can write here.
        """
        return not self._owed

    def settle(self) -> None:
        """Sync everything."""
        with translated():
            try:
                sync_files(self._folder, [str(number) for number in sorted(self._there)])
            except OSError as error:
                self._give_up()
                if no_room(error):  # as some file systems say only now
                    raise
                raise SyncFailed from error

    def publish(self, *, lasting: bool = True) -> None:
        """Give every file its name, and remove the folder; sync the names that are to last."""
        with translated():
            folders = self._by_folder()
            each = lasting and not at_once(self._root, len(folders))
            for parts, numbers in folders.items():
                here = walked(self._root, parts)
                try:
                    for number in numbers:
                        rename(number, self._folder, self._files[number].path, here)
                    if each:
                        os.fsync(here)
                finally:
                    os.close(here)
            os.rmdir(self._name, dir_fd=self._root)
            if each:
                os.fsync(self._root)
            elif lasting:
                flush(self._root)

    def _give_up(self) -> None:
        """Remove all parts: after a sync that failed nobody knows what the disk holds of them."""
        for number in self._there:
            os.unlink(str(number), dir_fd=self._folder)

    def _by_folder(self) -> dict[tuple[str, ...], list[int]]:
        """Return which parts belong into which folder; every folder above is there too."""
        folders: dict[tuple[str, ...], list[int]] = {}
        for number in sorted(self._there):
            parts = self._files[number].path.parts[:-1]
            if parts not in folders:
                for depth in range(len(parts)):
                    folders.setdefault(parts[:depth], [])
            folders.setdefault(parts, []).append(number)
        return folders

    def _wrong_pack(self, chunk: Chunk, numbers: Sequence[int]) -> bool:
        """Say whether files that share ``chunk`` are, together, not what they should be."""
        pieces = []
        for number in numbers:
            data = self._small(number)
            if data is None:
                return True
            pieces.append(data)
        return digest_of(b"".join(pieces)) != chunk.digest

    def _small(self, number: int) -> bytes | None:
        """Return the bytes of a small file, in its part or in its place; None without it."""
        file = self._files[number]
        fd = self._open_part(number)
        if fd is None:
            fd = self._open_published(file)
        if fd is None and self._given(number) is not Given.NOTHING:
            fd = self._open_part(number)
        if fd is None:
            return None
        try:
            data = os.pread(fd, file.size + 1, 0)
        finally:
            os.close(fd)
        return data if len(data) == file.size else None

    def _wrong(self, number: int) -> Sequence[Chunk]:
        """Return what is wrong with one file, in its part or, when it has none, in its place."""
        file = self._files[number]
        fd = self._open_part(number)
        if fd is None:
            if self._published(file):
                return ()
            match self._given(number):
                case Given.SOUND:
                    return ()
                case Given.UNSEEN:
                    return self._wrong(number)
            os.close(self._opened(number))
            return [chunk for chunk, _ in offsets(file)]
        try:
            os.ftruncate(fd, file.size)
            return _damaged(fd, file)
        finally:
            os.close(fd)

    def _open_part(self, number: int) -> int | None:
        if number not in self._there:
            return None
        return os.open(str(number), _FILE, dir_fd=self._folder)

    def _opened(self, number: int) -> int:
        """Open the part of a file, made if need be; the kernel takes the umask from its mode."""
        file, flags = self._files[number], _FILE
        if number not in self._there:
            flags |= os.O_CREAT | os.O_EXCL
        mode = 0o755 if file.executable else 0o644
        fd = os.open(str(number), flags, mode, dir_fd=self._folder)
        if number in self._there or not file.shared:  # what is shared is written as a whole
            os.ftruncate(fd, file.size)
        self._there.add(number)
        return fd

    def _given(self, number: int) -> Given:
        """Take the file from ``give``, with the mode of a part that we made, and no past."""
        if self._give is nothing:
            return Given.NOTHING
        fd = self._opened(number)
        made = os.fstat(fd)
        os.close(fd)
        given = self._give(self._files[number].path, self._folder, str(number))
        if given is Given.NOTHING:
            os.unlink(str(number), dir_fd=self._folder)
            self._there.discard(number)
            return given
        fd = os.open(str(number), _FILE, dir_fd=self._folder)
        try:
            os.fchmod(fd, stat.S_IMODE(made.st_mode))
            os.utime(fd)
            right = os.fstat(fd).st_size == self._files[number].size
        finally:
            os.close(fd)
        return given if right else Given.UNSEEN

    def _published(self, file: TreeFile) -> bool:
        """Say whether the file is in its place already, as after a crash between two renames."""
        fd = self._open_published(file)
        if fd is None:
            return False
        try:
            return os.fstat(fd).st_size == file.size and not _damaged(fd, file)
        finally:
            os.close(fd)

    def _open_published(self, file: TreeFile) -> int | None:
        """Open what has the name of the file, if it is a plain file with the right mode."""
        *folder, name = file.path.parts
        if name not in self._names_in(tuple(folder)):
            return None
        here = walked(self._root, tuple(folder), make=False)
        try:
            fd = os.open(name, _FILE, dir_fd=here)
        except OSError:
            return None
        finally:
            os.close(here)
        seen = os.fstat(fd)
        plain = stat.S_ISREG(seen.st_mode) and seen.st_nlink == 1
        if plain and bool(seen.st_mode & stat.S_IXUSR) == file.executable:
            return fd
        os.close(fd)
        return None

    def _names_in(self, parts: tuple[str, ...]) -> frozenset[str]:
        """Return what lay in a folder when it was first asked for; nothing if there is none."""
        if parts not in self._names:
            self._names[parts] = frozenset()
            with contextlib.suppress(FileNotFoundError, Conflict):
                here = walked(self._root, parts, make=False)
                try:
                    with os.scandir(here) as entries:
                        self._names[parts] = frozenset(entry.name for entry in entries)
                finally:
                    os.close(here)
        return self._names[parts]


def _damaged(fd: int, file: TreeFile) -> list[Chunk]:
    """Return the chunks that ``fd`` does not hold where it should; see that holes are empty."""
    found = damaged(fd, file)
    for offset, size in holes(file):
        empty(fd, offset, size)
    return found


def _write_all(fd: int, data: memoryview, offset: int) -> None:
    """Write ``data``, and let the disk begin with it: less is left to wait for at the end."""
    start, size = offset, len(data)
    while data:
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written
    if size >= _WORTH_BEGINNING:
        os.posix_fadvise(fd, start, size, os.POSIX_FADV_DONTNEED)
