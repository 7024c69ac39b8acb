"""The one module that writes state to files so that it outlives a power loss.

Rule 1: a file appears whole or not at all: temp in its directory → sync → rename → sync directory.
Rule 2: a sync that failed is never repeated: the system may have dropped what it could not write,
        and the next sync would lie. SyncFailed ends the process (`broker.ports`, CONTRIBUTING).
Rule 3: other OSErrors pass through with nothing changed; the adapter that called translates them.
Every durable step is also a crash point, where the fault tests end the process.
"""

from __future__ import annotations

import errno
import itertools
import os
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from functools import lru_cache
from pathlib import Path
from typing import Final, TypeVar

from sekisho.domain.errors import SekishoError, StorageFull, SyncFailed, Unavailable
from sekisho.transfer.place import no_room

#: Where a process can be made to end, and what has happened by then. The list exists here only.
CRASHPOINTS: Final[Mapping[str, str]] = {
    "file.begun": "a temporary file exists, empty",
    "file.written": "a temporary file has its bytes, not synced",
    "file.synced": "a temporary file is whole on disk",
    "file.renamed": "the file has its name, the directory is not synced",
    "file.kept": "the file is durable, nobody was told",
    "append.written": "bytes are at the end of a file, not synced",
    "append.kept": "the appended bytes are durable, nobody was told",
    "store.begun": "a writing transaction of the database has begun",
    "store.written": "everything is written, not committed",
    "store.kept": "the transaction is durable, nobody was told",
}
CRASH_STATUS: Final = 137
TEMPORARY: Final = ".part-"  #: how the name of an unfinished file begins

T = TypeVar("T")
#: So many files are open at once while they are written together.
_GROUP: Final = 128
#: Syncs that wait side by side, when there are many: a disk does several for the price of one.
_SYNCS: Final = 16
_MANY: Final = 8


def _armed() -> tuple[str, int] | None:
    """Return SEKISHO_CRASHPOINT=label[:nth] as (label, nth)."""
    label, _, nth = os.environ.get("SEKISHO_CRASHPOINT", "").partition(":")
    if not label:
        return None
    if label not in CRASHPOINTS:
        raise ValueError(label)
    return label, int(nth or 1)


_ARMED: Final = _armed()
_passed: Final = itertools.count(1)


def crashpoint(label: str) -> None:
    """End the process here, without clean-up, when the fault tests ask for it."""
    if _ARMED is not None and _ARMED[0] == label and next(_passed) == _ARMED[1]:
        os._exit(CRASH_STATUS)


def translated(error: OSError) -> SekishoError:
    """Return StorageFull or Unavailable for ``error``, without the path that it names."""
    if no_room(error):
        return StorageFull()
    return Unavailable("storage.unavailable", why=errno.errorcode.get(error.errno or 0, "unknown"))


def sync(descriptor: int) -> None:
    """Return when the file is on disk; raise SyncFailed when it cannot be known to be."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise SyncFailed(why=errno.errorcode.get(error.errno or 0, "unknown")) from error


def sync_directory(path: Path) -> None:
    """Return when the names in ``path`` are on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def sync_directories(paths: Iterable[Path]) -> None:
    """Return when the names in each of ``paths`` are on disk."""
    _side_by_side(sync_directory, list(paths))


def make_directory(path: Path, *, mode: int = 0o700) -> None:
    """Make ``path`` below an existing directory, durably; an existing one is no error."""
    make_directories([path], mode=mode)


def make_directories(paths: Sequence[Path], *, mode: int = 0o700) -> None:
    """Make ``paths``, each below an existing directory, as `make_directory` makes one."""
    for path in paths:
        with suppress(FileExistsError):
            path.mkdir(mode=mode)
    sync_directories({path.parent for path in paths})


def write_file(path: Path, data: bytes, *, mode: int = 0o600, named: bool = True) -> None:
    """Make ``path`` hold exactly ``data``, durably, replacing what it held before.

    Raise OSError with the old content untouched. When not ``named``, the directory is not synced:
    a power loss may bring the old content back, whole.
    """
    write_files([(path, data)], mode=mode, named=named)


def write_files(
    files: Sequence[tuple[Path, bytes]], *, mode: int = 0o600, named: bool = True
) -> None:
    """Make each path hold exactly its data, as `write_file` does, for the price of few syncs.

    All are durable when it returns. Raise OSError when only some of them may be, each whole.
    """
    for first in range(0, len(files), _GROUP):
        _write_group(files[first : first + _GROUP], mode, named=named)


def _write_group(files: Sequence[tuple[Path, bytes]], mode: int, *, named: bool) -> None:
    begun: list[Path] = []
    try:
        with ExitStack() as opened:
            descriptors = [_begin(path, begun, opened, mode) for path, _ in files]
            for descriptor, (_, data) in zip(descriptors, files, strict=True):
                _write_all(descriptor, data)
                crashpoint("file.written")
            _side_by_side(sync_new, descriptors)
        crashpoint("file.synced")
        for path, _ in files:
            begun[0].replace(path)
            del begun[0]
    except OSError:
        for temporary in begun:
            temporary.unlink(missing_ok=True)
        raise
    crashpoint("file.renamed")
    if named:
        sync_directories({path.parent for path, _ in files})
    crashpoint("file.kept")


def _begin(path: Path, begun: list[Path], opened: ExitStack, mode: int) -> int:
    """Open a new temporary file beside ``path``; it is in ``begun`` as soon as it can exist."""
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
    begun.append(temporary)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(temporary, flags, mode)
    except OSError as error:
        error.filename = str(path)  # the name that the caller knows
        raise
    opened.callback(os.close, descriptor)
    crashpoint("file.begun")
    return descriptor


def _side_by_side(step: Callable[[T], None], items: Sequence[T]) -> None:
    """Do ``step`` with each item; raise the first error when none is under way any more."""
    if len(items) < _MANY:
        for item in items:
            step(item)
        return
    threads = _threads(os.getpid())
    steps = [threads.submit(step, item) for item in items]
    wait(steps)
    for done in steps:
        done.result()


@lru_cache(maxsize=1)
def _threads(_process: int) -> ThreadPoolExecutor:
    """Return the threads that sync for this process, made when first asked for."""
    return ThreadPoolExecutor(_SYNCS, thread_name_prefix="sync")


def append(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Add ``data`` to the end of ``path``, durably, making the file when there is none.

    One writer at a time. Raise OSError with nothing added; after a crash the last record may be
    torn, so records need an end mark.
    """
    new = not path.exists()
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, mode)
    try:
        append_to(descriptor, data)
    finally:
        os.close(descriptor)
    if new:
        sync_directory(path.parent)
    crashpoint("append.kept")


def append_to(descriptor: int, data: bytes) -> None:
    """Add ``data`` to the end of a file opened to append, as `append` does."""
    before = os.fstat(descriptor).st_size
    try:
        _write_all(descriptor, data)
    except OSError:
        os.ftruncate(descriptor, before)
        raise
    crashpoint("append.written")
    sync(descriptor)


def sync_new(descriptor: int) -> None:
    """Sync bytes of which nothing was promised yet; raise OSError when there is no room for them.

    Some file systems notice only here. The bytes are thrown away then, so this is not fatal.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if no_room(error):
            raise
        raise SyncFailed(why=errno.errorcode.get(error.errno or 0, "unknown")) from error


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
