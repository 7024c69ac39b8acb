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
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from sekisho.domain.errors import SekishoError, StorageFull, SyncFailed, Unavailable

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

#: What the system says when there is no room: disk, quota, largest file.
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


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


def no_room(error: OSError) -> bool:
    """Say whether ``error`` means that there is no room to store what was sent."""
    return error.errno in _NO_ROOM


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


def make_directory(path: Path, *, mode: int = 0o700) -> None:
    """Make ``path`` below an existing directory, durably; an existing one is no error."""
    with suppress(FileExistsError):
        path.mkdir(mode=mode)
    sync_directory(path.parent)


def write_file(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Make ``path`` hold exactly ``data``, durably, replacing what it held before.

    Raise OSError with the old content untouched.
    """
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
    try:
        _write_new(temporary, data, mode)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    crashpoint("file.renamed")
    sync_directory(path.parent)
    crashpoint("file.kept")


def append(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Add ``data`` to the end of ``path``, durably, making the file when there is none.

    One writer at a time. Raise OSError with nothing added; after a crash the last record may be
    torn, so records need an end mark.
    """
    new = not path.exists()
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, mode)
    try:
        _append(descriptor, data)
    finally:
        os.close(descriptor)
    if new:
        sync_directory(path.parent)
    crashpoint("append.kept")


def _append(descriptor: int, data: bytes) -> None:
    before = os.fstat(descriptor).st_size
    try:
        _write_all(descriptor, data)
    except OSError:
        os.ftruncate(descriptor, before)
        raise
    crashpoint("append.written")
    sync(descriptor)


def _write_new(path: Path, data: bytes, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, mode)
    try:
        crashpoint("file.begun")
        _write_all(descriptor, data)
        crashpoint("file.written")
        _sync_new(descriptor)
        crashpoint("file.synced")
    finally:
        os.close(descriptor)


def _sync_new(descriptor: int) -> None:
    """Sync a file that has no name yet: some file systems notice only here that they are full.

    Nothing was promised of these bytes and they are thrown away, so this is not fatal.
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
