"""Stock of files that jobs get as hard links: `<base>/.stock/<submitter>/<content>`.

Rule 1: a file is lent for as long as the kernel vouches that nobody can have written to it since it
        was verified: we hold a lease on it, which ends before it is opened for writing. After an
        hour, another start, or where there are no leases to be trusted, it is read again first.
Rule 2: its mode is what holds its readers back. Where it does not hold us back, nothing is lent.
Rule 3: the least recently lent goes first. Who uses it keeps it: a link is as good as the file.
Facts: fcntl(2), "Leases".
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from sekisho.adapters.durable import sync
from sekisho.adapters.lease import lease, leased, vouches
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
#: A disk with less room than this is left to jobs.
_SPARE_BYTES: Final = 1024 * MIB
_TRUSTED_SECONDS: Final = 3600.0
#: So many files are held open, those that were lent last.
_MOST_HELD: Final = 64
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
Key = tuple[str, str]  #: a submitter's folder, the name of a content

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Held:
    """An open file that was right at the monotonic time ``at``, with our lease on it."""

    fd: int
    at: float


class LinkedStock:
    """At most ``max_bytes`` of files below ``base``, on the file system of the work directories.

    ``grown`` is told how many bytes there are, at first and whenever that changes.
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
        self._monotonic = monotonic
        self._change = threading.Lock()
        self._held: OrderedDict[Key, _Held] = OrderedDict()
        self._trim()

    def has(self, submitter: str, files: Sequence[TreeFile]) -> set[RelPath]:
        try:
            names = {path.name for path in (self._root / _folder_of(submitter)).iterdir()}
        except OSError:
            return set()
        large = [file for file in files if file.size >= SMALL_BYTES]
        return {file.path for file in large if _name_of(file) in names}

    def lend(
        self, submitter: str, place: Place, files: Sequence[TreeFile], *, lasting: bool
    ) -> set[RelPath]:
        here = self.has(submitter, files)
        try:
            return self._lent(
                submitter, place, [f for f in files if f.path in here], lasting=lasting
            )
        except (OSError, Conflict) as error:  # they are fetched, and whoever does so says why not
            log.info("stock_not_lent", why=str(error))
            return set()

    def keep(self, submitter: str, place: Place, files: Sequence[TreeFile]) -> None:
        with suppress(OSError), self._opened(submitter, place) as (owner, folder, work):
            for file in files:
                with suppress(OSError, Conflict), _opened_input(work, file) as fd:
                    if _guarded(fd, file):
                        self._keep((owner, _name_of(file)), folder, file, fd)
        self._trim()

    def give_way(self) -> None:
        """Let go of what somebody wants to write to, who waits for that; never waits itself."""
        if self._change.acquire(blocking=False):
            try:
                for key in [key for key, held in self._held.items() if not leased(held.fd)]:
                    self._let_go(key)
            finally:
                self._change.release()

    def close(self) -> None:
        """Let go of everything; what is kept stays."""
        with self._change:
            for key in list(self._held):
                self._let_go(key)

    def _lent(
        self, submitter: str, place: Place, files: Sequence[TreeFile], *, lasting: bool
    ) -> set[RelPath]:
        if not files:
            return set()
        lent = set()
        with self._opened(submitter, place) as (owner, folder, work):
            for file in files:
                with self._verified((owner, _name_of(file)), folder, file) as fd:
                    if fd is not None:
                        os.utime(fd, ns=(time.time_ns(), os.fstat(fd).st_mtime_ns))
                        _link(fd, work, file.path)
                        if lasting:
                            sync(fd)
                        lent.add(file.path)
            if lasting:
                _sync_names(work, lent)
        return lent

    @contextmanager
    def _verified(self, key: Key, folder: int, file: TreeFile) -> Iterator[int | None]:
        """Open what holds what ``file`` says, and cannot be written to; None without it."""
        fd = self._trusted(key)
        known = fd is not None
        if fd is None:
            fd = os.open(key[1], _FILE, dir_fd=folder)
        try:
            yield fd if _guarded(fd, file) and (known or self._proved(key, file, fd)) else None
        finally:
            os.close(fd)

    def _trusted(self, key: Key) -> int | None:
        """Return a descriptor, the caller's, of what was right and nobody can have changed."""
        with self._change:
            held = self._held.get(key)
            if held is None:
                return None
            if not leased(held.fd) or self._monotonic() - held.at > _TRUSTED_SECONDS:
                self._let_go(key)
                return None
            self._held.move_to_end(key)
            return os.dup(held.fd)

    def _proved(self, key: Key, file: TreeFile, fd: int) -> bool:
        """Say whether what is open holds what ``file`` says; remove it if not."""
        vouched = vouches(fd)
        if vouched and not lease(fd):
            return False  # somebody writes just now
        if not holds(fd, file):
            log.warning("stock_file_dropped", content=key[1])
            with suppress(OSError):
                self._root.joinpath(*key).unlink()
            return False
        if vouched and leased(fd):
            self._hold(key, fd)
        return not vouched or leased(fd)

    def _keep(self, key: Key, folder: int, file: TreeFile, fd: int) -> None:
        """Give the file, just fetched and still open, a second name here."""
        room = os.fstatvfs(folder)
        wanted = os.fstat(fd).st_blocks * BLOCK_BYTES
        if (
            file.size < SMALL_BYTES
            or wanted > self._max_bytes
            or room.f_bavail * room.f_frsize < self._spare_bytes
        ):
            return
        with suppress(FileExistsError):
            os.link(_path_of(fd), key[1], dst_dir_fd=folder, follow_symlinks=True)
            if vouches(fd) and lease(fd):
                self._hold(key, fd)

    def _hold(self, key: Key, fd: int) -> None:
        """Remember that what is open at ``fd`` is right, and leased for as long as we do."""
        with self._change:
            self._let_go(key)
            self._held[key] = _Held(os.dup(fd), self._monotonic())
            while len(self._held) > _MOST_HELD:
                self._let_go(next(iter(self._held)))

    def _let_go(self, key: Key) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            os.close(held.fd)

    def _trim(self) -> None:
        """Remove what is too much, and tell what there is."""
        with self._change, suppress(OSError):
            found = sorted(_found(self._root))
            total = sum(size for _, size, _ in found)
            for _, size, key in found:
                if total <= self._max_bytes:
                    break
                self._let_go(key)
                self._root.joinpath(*key).unlink(missing_ok=True)
                total -= size
            self._grown(total)

    @contextmanager
    def _opened(self, submitter: str, place: Place) -> Iterator[tuple[str, int, int]]:
        """Give the submitter's folder, made if need be, by name and open, and ``input_dir``."""
        owner = _folder_of(submitter)
        for folder in (self._root, self._root / owner):
            folder.mkdir(mode=0o700, exist_ok=True)
        with ExitStack() as stack:
            here = os.open(self._root / owner, _FOLDER)
            stack.callback(os.close, here)
            work = os.open(place.input_dir, _FOLDER)
            stack.callback(os.close, work)
            yield owner, here, work


def _folder_of(submitter: str) -> str:
    return digest_of(submitter.encode())


def _name_of(file: TreeFile) -> str:
    """Return the name of a content: what a job sees of a file, but its name."""
    told = [str(file.executable), *(f"{chunk.digest} {chunk.size}" for chunk in file.chunks)]
    return digest_of("\n".join(told).encode())


def _path_of(fd: int) -> str:
    """Return a path of the very file that is open, whatever became of its name."""
    return f"/proc/self/fd/{fd}"


def _guarded(fd: int, file: TreeFile) -> bool:
    """Give a plain file its mode, whatever a job made of it; say whether that holds us back."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return False
    os.fchmod(fd, 0o555 if file.executable else 0o444)
    return not os.access(_path_of(fd), os.W_OK, effective_ids=True)


@contextmanager
def _opened_input(work: int, file: TreeFile) -> Iterator[int]:
    here = walked(work, file.path.parts[:-1], make=False)
    try:
        fd = os.open(file.path.parts[-1], _FILE, dir_fd=here)
    finally:
        os.close(here)
    try:
        yield fd
    finally:
        os.close(fd)


def _link(fd: int, work: int, path: RelPath) -> None:
    """Give the open file the name ``path`` below ``work``, in place of what an earlier try left."""
    here = walked(work, path.parts[:-1])
    try:
        with suppress(FileNotFoundError):
            os.unlink(path.parts[-1], dir_fd=here)
        os.link(_path_of(fd), path.parts[-1], dst_dir_fd=here, follow_symlinks=True)
    finally:
        os.close(here)


def _sync_names(work: int, paths: set[RelPath]) -> None:
    """Return when the names ``paths``, and the folders that they are in, are on disk."""
    folders = {path.parts[:depth] for path in paths for depth in range(len(path.parts))}
    for parts in folders:
        here = walked(work, parts, make=False)
        try:
            sync(here)
        finally:
            os.close(here)


def _found(root: Path) -> Iterator[tuple[int, int, Key]]:
    """Return (time of last use, bytes on disk, key) of every file."""
    for path in root.glob("*/*"):
        with suppress(FileNotFoundError):
            seen = path.stat(follow_symlinks=False)
            key = (path.parent.name, path.name)
            yield seen.st_atime_ns, seen.st_blocks * BLOCK_BYTES, key
