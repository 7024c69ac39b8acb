"""Stock of files that jobs get as clones, or as hard links: `<base>/.stock/<shelf>/<content>`.

Rule 1: a file is lent for as long as the kernel vouches that nobody can have written to it since
        it was verified (`adapters.vouched`). After an hour, another start, or where there are no
        leases to be trusted, it is read again first.
Rule 2: a link needs a mode that holds its readers back. Where it does not hold us back, or the
        command writes, a job gets a clone, and the stock a clone of what was fetched.
Rule 3: the least recently lent goes first. Who uses it keeps it: a link, or a clone, is as good as
        the file.
A submitter has a shelf of what was linked, and one of clones, whose files are no job's.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from sekisho.adapters.lease import lease, leased, vouches
from sekisho.adapters.loan import Loan, guarded, name
from sekisho.adapters.reflink import can_clone, cloned
from sekisho.adapters.vouched import Key, Vouched
from sekisho.domain.errors import Conflict
from sekisho.domain.files import RelPath
from sekisho.domain.limits import MIB
from sekisho.site.workplace import Place
from sekisho.transfer.content import holds
from sekisho.transfer.holes import BLOCK_BYTES
from sekisho.transfer.pack import SMALL_BYTES
from sekisho.transfer.place import walked
from sekisho.transfer.tree import TreeFile
from sekisho.wire.frames import digest_of

STOCK: Final = ".stock"  #: in the base of all jobs; no name of a job begins with a dot
#: How the name of a shelf ends that is none of hard links.
_CLONES: Final = ".clones"
_PAGE: Final = 4096
#: A disk with less room than this is left to jobs.
_SPARE_BYTES: Final = 1024 * MIB
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

log = structlog.get_logger()


class _Shelf(NamedTuple):
    """A folder of files for one submitter. ``links``: jobs may have names of them."""

    folder: str
    links: bool


class _Kept(NamedTuple):
    """A file of the stock: the time of its last use, the room that it takes, where it is."""

    used_ns: int
    size: int
    key: Key


class DirectoryStock:
    """At most ``max_bytes`` of files below ``base``, on the file system of the work directories.

    Half of that for clones: an input that changes from job to job is better found in the cache of
    chunks, which has the rest. ``grown`` is told how many bytes there are, at first and whenever
    that changes.
    """

    def __init__(
        self,
        base: Path,
        max_bytes: int,
        *,
        grown: Callable[[int], None] = lambda _: None,
        spare_bytes: int = _SPARE_BYTES,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = base.absolute() / STOCK
        self._max_bytes = max_bytes
        self._grown = grown
        self._spare_bytes = spare_bytes
        self._change = threading.Lock()
        self._vouched = Vouched(monotonic)
        self.clones = can_clone(base if base.is_dir() else base.absolute().parent)
        self._trim()

    def has(self, submitter: str, files: Sequence[TreeFile]) -> set[RelPath]:
        return {file.path for shelf in _shelves(submitter) for file in self._here(shelf, files)}

    def lend(
        self,
        submitter: str,
        place: Place,
        files: Sequence[TreeFile],
        *,
        writable: bool,
        lasting: bool,
    ) -> set[RelPath]:
        lent: set[RelPath] = set()
        if writable and not self.clones:
            return lent
        try:
            with _opened(place.input_dir) as work:
                loan = Loan(work, writable=writable, lasting=lasting, clones=self.clones)
                for shelf in _shelves(submitter):
                    lent |= self._lent(shelf, loan, [f for f in files if f.path not in lent])
                loan.settle(lent)
        except (OSError, Conflict) as error:  # they are fetched, and whoever does so says why not
            log.info("stock_not_lent", why=str(error))
            return set()
        return lent

    def keep(
        self, submitter: str, place: Place, files: Sequence[TreeFile], *, writable: bool
    ) -> None:
        linked, own = _shelves(submitter)
        with suppress(OSError), _opened(place.input_dir) as work:
            for file in files:
                with suppress(OSError, Conflict), _opened_input(work, file) as fd:
                    if not writable and guarded(fd, file):
                        self._keep(linked, file, fd)
                    elif self.clones:
                        self._keep(own, file, fd)
        self._trim()

    def give_way(self) -> None:
        """Let go of what somebody wants to write to, who waits for that; never waits itself."""
        self._vouched.give_way()

    def close(self) -> None:
        """Let go of everything; what is kept stays."""
        self._vouched.close()

    def _lent(self, shelf: _Shelf, loan: Loan, files: Sequence[TreeFile]) -> set[RelPath]:
        lent: set[RelPath] = set()
        here = self._here(shelf, files)
        if not here:
            return lent
        with _opened(self._root / shelf.folder) as folder:
            for file in here:
                with self._verified(shelf, folder, file) as fd:
                    if fd is not None and loan.give(fd, file, link=shelf.links):
                        os.utime(fd, ns=(time.time_ns(), os.fstat(fd).st_mtime_ns))
                        lent.add(file.path)
        return lent

    def _here(self, shelf: _Shelf, files: Sequence[TreeFile]) -> list[TreeFile]:
        """Return those of ``files`` that seem to be on ``shelf``."""
        try:
            names = {path.name for path in (self._root / shelf.folder).iterdir()}
        except OSError:
            return []
        return [file for file in files if file.size >= SMALL_BYTES and _name_of(file) in names]

    @contextmanager
    def _verified(self, shelf: _Shelf, folder: int, file: TreeFile) -> Iterator[int | None]:
        """Open what holds what ``file`` says, and cannot be written to; None without it."""
        key = (shelf.folder, _name_of(file))
        fd = self._vouched.find(key)
        known = fd is not None
        if fd is None:
            fd = os.open(key[1], _FILE, dir_fd=folder)
        try:
            yield fd if known or self._proved(key, file, fd) else None
        finally:
            os.close(fd)

    def _proved(self, key: Key, file: TreeFile, fd: int) -> bool:
        """Say whether what is open holds what ``file`` says; remove it if not."""
        vouched = vouches(fd)
        if vouched and not lease(fd):
            return False  # somebody writes just now, or it is no plain file
        if not holds(fd, file):
            log.warning("stock_file_dropped", content=key[1])
            with suppress(OSError):
                self._root.joinpath(*key).unlink()
            return False
        if vouched and leased(fd):
            self._vouched.hold(key, fd)
        return not vouched or leased(fd)

    def _keep(self, shelf: _Shelf, file: TreeFile, fd: int) -> None:
        """Give the file, just fetched and still open, or a clone of it, a name on ``shelf``."""
        if file.size < SMALL_BYTES or not self._fits(shelf, fd) or self._here(shelf, [file]):
            return
        for made in (self._root, self._root / shelf.folder):
            made.mkdir(mode=0o700, exist_ok=True)
        mode = 0o555 if file.executable else 0o444
        with (
            _opened(self._root / shelf.folder) as folder,
            nullcontext(fd) if shelf.links else cloned(fd, folder, mode) as own,
        ):
            if own is None:
                return
            vouched = vouches(own) and lease(own)
            name(own, folder, _name_of(file))
            if vouched:
                self._vouched.hold((shelf.folder, _name_of(file)), own)

    def _fits(self, shelf: _Shelf, fd: int) -> bool:
        room = os.fstatvfs(fd)
        if room.f_bavail * room.f_frsize < self._spare_bytes:
            return False
        most = self._max_bytes if shelf.links else self._max_bytes // 2
        return _bytes_of(os.fstat(fd)) <= most

    def _trim(self) -> None:
        """Remove what is too much, and tell what there is."""
        with self._change, suppress(OSError):
            found = sorted(_found(self._root))
            clones = [kept for kept in found if kept.key[0].endswith(_CLONES)]
            gone = self._removed(clones, self._max_bytes // 2)
            rest = [kept for kept in found if kept not in gone]
            gone = self._removed(rest, self._max_bytes)
            self._grown(sum(kept.size for kept in rest if kept not in gone))

    def _removed(self, found: Sequence[_Kept], most: int) -> set[_Kept]:
        """Remove the first of ``found``, until the rest is ``most`` bytes; return them."""
        total = sum(kept.size for kept in found)
        gone = set()
        for kept in found:
            if total <= most:
                break
            self._vouched.drop(kept.key)
            self._root.joinpath(*kept.key).unlink(missing_ok=True)
            total -= kept.size
            gone.add(kept)
        return gone


def _shelves(submitter: str) -> tuple[_Shelf, _Shelf]:
    folder = digest_of(submitter.encode())
    return _Shelf(folder, links=True), _Shelf(folder + _CLONES, links=False)


def _name_of(file: TreeFile) -> str:
    """Return the name of a content: what a job sees of a file, but its name."""
    told = [str(file.executable), *(f"{chunk.digest} {chunk.size}" for chunk in file.chunks)]
    return digest_of("\n".join(told).encode())


@contextmanager
def _opened(folder: str | Path) -> Iterator[int]:
    fd = os.open(folder, _FOLDER)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _opened_input(work: int, file: TreeFile) -> Iterator[int]:
    """Open what was fetched; raise Conflict, or OSError, for what is not a plain file there."""
    here = walked(work, file.path.parts[:-1], make=False)
    try:
        fd = os.open(file.path.parts[-1], _FILE, dir_fd=here)
    finally:
        os.close(here)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Conflict("fetch.blocked", path=str(file.path))
        yield fd
    finally:
        os.close(fd)


def _found(root: Path) -> Iterator[_Kept]:
    """Return every file."""
    for path in root.glob("*/*"):
        with suppress(FileNotFoundError):
            seen = path.stat(follow_symlinks=False)
            yield _Kept(seen.st_atime_ns, _bytes_of(seen), (path.parent.name, path.name))


def _bytes_of(seen: os.stat_result) -> int:
    """Return the room of a file's data: its own, and not what else its file system notes of it."""
    return min(seen.st_blocks * BLOCK_BYTES, -(-seen.st_size // _PAGE) * _PAGE)
