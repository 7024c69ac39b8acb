"""Looking at what a job left behind without being led out of its directory.

Rule 1: a directory is entered and a file is opened below a held descriptor, one component at a
        time, never through a link; no path is resolved first and opened afterwards.
Rule 2: what a thing is, is asked of the open descriptor; a name only tells what not to open.
Rule 3: read is only a regular file with one name, of the site's user, on the mount of the walk.
"""

from __future__ import annotations

import errno
import os
import stat
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from sekisho.domain.egress import Fault, Found, Withheld
from sekisho.domain.errors import UsageError
from sekisho.domain.files import RelPath
from sekisho.site.workplace import CollectCaps, Collected, Why
from sekisho.transfer.mount import mount_of

_COMMON: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
#: What an open says about the thing it met; every other error is the machine's, not the thing's.
_MEANING: Final = {
    errno.ELOOP: Why.SYMLINK,
    errno.ENOTDIR: Why.CHANGED,
    errno.EISDIR: Why.CHANGED,
    errno.ESTALE: Why.CHANGED,
    errno.ENOENT: Why.GONE,
    errno.EACCES: Why.UNREADABLE,
    errno.EPERM: Why.UNREADABLE,
    errno.ENXIO: Why.SPECIAL,
    errno.ENODEV: Why.SPECIAL,
}


class Unsafe(Exception):
    """The thing is withheld. Never leaves the collector."""

    def __init__(self, why: Why) -> None:
        self.why = why
        super().__init__(why)


class _Over(Exception):
    """A cap on the whole walk was passed. Never leaves the collector."""

    def __init__(self, why: str, limit: int) -> None:
        self.fault = Fault("collect.over", (("limit", limit), ("why", why)))
        super().__init__(why)


@dataclass(frozen=True, slots=True)
class Origin:
    """What every file must have in common with the work directory, and its owner."""

    device: int
    mount: int
    owner: int


def origin_of(root: int) -> Origin:
    """Return the origin of the directory ``root``, to be shared with the user we run as."""
    return Origin(os.fstat(root).st_dev, mount_of(root), os.geteuid())


@contextmanager
def opened_directory(name: str, parent: int, origin: Origin | None = None) -> Iterator[int]:
    """Open the directory ``name`` in ``parent`` without following a link; raise Unsafe."""
    fd = _open(name, parent, os.O_DIRECTORY)
    try:
        if origin is not None:
            _check_origin(os.fstat(fd), fd, origin)
        yield fd
    finally:
        os.close(fd)


class Folders:
    """The directories on the way to files below ``root``. A context manager.

    Each is opened below the held one above it, never through a link, and is held for as long as
    files in it, or below it, are asked for one after the other.
    """

    def __init__(self, root: int) -> None:
        self._held: list[tuple[str, int]] = [("", root)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave(1)

    def enter(self, parts: tuple[str, ...]) -> int:
        """Return a descriptor of the directory ``parts``, good till the next call; raise Unsafe."""
        common = 1
        while self._held[common:] and (self._held[common][0],) == parts[common - 1 : common]:
            common += 1
        self._leave(common)
        for part in parts[common - 1 :]:
            self._held.append((part, _open(part, self._held[-1][1], os.O_DIRECTORY)))
        return self._held[-1][1]

    def opened(
        self, path: RelPath, origin: Origin, settle_s: float
    ) -> AbstractContextManager[tuple[int, os.stat_result]]:
        """Open the plain file ``path``, as `opened_file`; good till the next call."""
        *above, name = path.parts
        return opened_file(self.enter(tuple(above)), name, origin, settle_s)

    def _leave(self, depth: int) -> None:
        while len(self._held) > depth:
            os.close(self._held.pop()[1])


@contextmanager
def opened_file(
    here: int, name: str, origin: Origin, settle_s: float
) -> Iterator[tuple[int, os.stat_result]]:
    """Open the plain file ``name`` in ``here`` for reading, with its attributes; raise Unsafe.

    Never blocks, and never follows a link. What was read inside of the block may be used after it
    only: at its end Unsafe tells that the file changed meanwhile, or that another name than this
    one leads to it. That is seen from its time of change, which the file system tells apart after
    ``settle_s``; so a file that changed less long ago is waited for. (A write in flight shows as of
    its beginning only: whoever could write is to be dead by now.)
    """
    fd = _open(name, here, 0)
    try:
        seen = _checked(fd, origin)
        yield fd, seen
        _check_same(name, here, fd, seen)
        fresh_s = settle_s - (time.time_ns() - seen.st_ctime_ns) / 1e9
        if 0 < fresh_s <= settle_s:
            time.sleep(fresh_s)
            _check_same(name, here, fd, seen)
    finally:
        os.close(fd)


def read_plain(folders: Folders, found: Found, origin: Origin, settle_s: float) -> bytes:
    """Return the bytes of the plain file ``found``, held in memory; raise Unsafe.

    What is read stood still meanwhile: a file that is being written is not read by half.
    """
    with folders.opened(found.path, origin, settle_s) as (fd, seen):
        data = os.pread(fd, found.size + 1, 0)
        if not len(data) == seen.st_size == found.size:
            raise Unsafe(Why.CHANGED)
    return data


def _check_same(name: str, parent: int, fd: int, before: os.stat_result) -> None:
    """Raise Unsafe unless ``name`` is, and throughout was, the only name of what is at ``fd``.

    A link count of one says nothing by itself: a second name may have been there at the open, and
    be gone. But no name can come or go without a new time of change.
    """
    named = _stat(name, parent)
    if not _state(named) == _state(os.fstat(fd)) == _state(before):
        raise Unsafe(Why.CHANGED)


def _state(seen: os.stat_result) -> tuple[int, ...]:
    """Return what a write, a truncation, a name that comes or goes, or a new mode would change."""
    identity = (seen.st_dev, seen.st_ino)
    return (*identity, seen.st_nlink, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)


def _open(name: str, parent: int, kind: int) -> int:
    try:
        return os.open(name, _COMMON | kind, dir_fd=parent)
    except OSError as error:
        raise _meaning(error) from error


def _stat(name: str, parent: int) -> os.stat_result:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except OSError as error:
        raise _meaning(error) from error


def _meaning(error: OSError) -> Exception:
    """Return what ``error`` says about the thing that was met, or itself when it says nothing."""
    why = _MEANING.get(error.errno or 0)
    return error if why is None else Unsafe(why)


def _checked(fd: int, origin: Origin) -> os.stat_result:
    """Return what is open at ``fd`` when it is a plain file of ours, else raise Unsafe."""
    seen = os.fstat(fd)
    if not stat.S_ISREG(seen.st_mode):
        raise Unsafe(Why.CHANGED if stat.S_ISDIR(seen.st_mode) else Why.SPECIAL)
    _check_origin(seen, fd, origin)
    if seen.st_nlink != 1:
        raise Unsafe(Why.HARD_LINK if seen.st_nlink else Why.GONE)
    return seen


def _check_origin(seen: os.stat_result, fd: int, origin: Origin) -> None:
    if seen.st_dev != origin.device or mount_of(fd) != origin.mount:
        raise Unsafe(Why.OTHER_DEVICE)
    if seen.st_uid != origin.owner:
        raise Unsafe(Why.OWNER)


def survey(root: int, caps: CollectCaps, monotonic: Callable[[], float]) -> Collected:
    """Return the plain files below ``root`` by name and size, in order, and what is not plain."""
    walk = _Walk(origin_of(root), caps, monotonic)
    try:
        walk.enter(root, ())
    except _Over as over:
        return Collected(
            withheld=tuple(walk.withheld), unlisted=walk.unlisted, faults=(over.fault,)
        )
    return Collected(found=tuple(walk.found), withheld=tuple(walk.withheld), unlisted=walk.unlisted)


class _Walk:
    """One walk: what it has seen, and how much more it may see. Open descriptors: one a level."""

    def __init__(self, origin: Origin, caps: CollectCaps, monotonic: Callable[[], float]) -> None:
        self.found: list[Found] = []
        self.withheld: list[Withheld] = []
        self.unlisted = 0
        self._origin = origin
        self._caps = caps
        self._monotonic = monotonic
        self._end = monotonic() + caps.max_seconds
        self._entries = 0
        self._name_bytes = 0

    def enter(self, fd: int, parts: tuple[str, ...]) -> None:
        for name in self._names(fd):
            self._check_time()
            try:
                self._look(fd, (*parts, name))
            except Unsafe as unsafe:
                self._withhold((*parts, name), unsafe.why)

    def _names(self, fd: int) -> list[str]:
        """Return the names in ``fd``, sorted: all of them, or raise _Over before one is touched."""
        names = []
        with os.scandir(fd) as entries:
            for entry in entries:
                names.append(entry.name)
                self._entries += 1
                self._name_bytes += len(os.fsencode(entry.name))
                if self._entries > self._caps.max_entries:
                    raise _Over("entries", self._caps.max_entries)
                if self._name_bytes > self._caps.max_name_bytes:
                    raise _Over("names", self._caps.max_name_bytes)
        return sorted(names)

    def _check_time(self) -> None:
        if self._monotonic() > self._end:
            raise _Over("time", int(self._caps.max_seconds))

    def _look(self, fd: int, parts: tuple[str, ...]) -> None:
        mode = _stat(parts[-1], fd).st_mode
        if stat.S_ISLNK(mode):
            raise Unsafe(Why.SYMLINK)
        if stat.S_ISDIR(mode):
            self._look_into(fd, parts)
        elif stat.S_ISREG(mode):
            self._measure(fd, parts)
        else:
            raise Unsafe(Why.SPECIAL)  # not even opened: to open a device can be to use it

    def _look_into(self, fd: int, parts: tuple[str, ...]) -> None:
        if len(parts) >= self._caps.max_depth:
            raise Unsafe(Why.TOO_DEEP)
        _path_of(parts)
        with opened_directory(parts[-1], fd, self._origin) as below:
            self.enter(below, parts)

    def _measure(self, fd: int, parts: tuple[str, ...]) -> None:
        path = _path_of(parts)
        file = _open(parts[-1], fd, 0)
        try:
            size = _checked(file, self._origin).st_size
        finally:
            os.close(file)
        if size > self._caps.max_file_bytes:
            raise Unsafe(Why.TOO_LARGE)
        self.found.append(Found(path, size))

    def _withhold(self, parts: tuple[str, ...], why: Why) -> None:
        if len(self.withheld) < self._caps.max_withheld:
            self.withheld.append(Withheld(printable("/".join(parts)), why.value))
        else:
            self.unlisted += 1


def _path_of(parts: tuple[str, ...]) -> RelPath:
    try:
        return RelPath(parts)
    except UsageError as error:
        raise Unsafe(Why.NAME) from error


def printable(name: str) -> str:
    """Return ``name`` with whatever is not plainly visible written as an escape.

    Names of a job may hold any byte; the site's log and terminal are to show them, not obey them.
    """
    plain = (c if _visible(c) else c.encode("unicode_escape").decode() for c in name[:4096])
    return "".join(plain)


def _visible(character: str) -> bool:
    return character == " " or unicodedata.category(character)[0] not in "CZ"
