"""Bringing files to the disk: many by one call, where that is as sure as a sync of each.

Each sync waits for the journal of the file system; `syncfs` waits once, for everything on it. It is
used where it is known to end when all is on disk: certain file systems of this machine, and kernels
that tell when something could not be written (Linux 5.8). A call that failed is never repeated: the
system may have dropped what it could not write.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Sequence
from functools import cache
from typing import Final

from sekisho.transfer.mount import kind_of
from sekisho.transfer.pipeline import mapped

#: From so many on, one call is worth that it waits for what others have written, too.
_MANY: Final = 64
#: Otherwise so many are synced at a time: a file system makes one write of several syncs.
_SIDE_BY_SIDE: Final = 16
_SURE: Final = frozenset({"ext4", "xfs", "tmpfs"})
_KERNEL: Final = (5, 8)


def sync_files(folder: int, names: Sequence[str]) -> None:
    """Return when the files ``names`` in the open ``folder`` are on disk; raise OSError."""
    if at_once(folder, len(names)):
        flush(folder)
        return

    def sync(name: str) -> None:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    width = min(_SIDE_BY_SIDE, len(names))
    for _ in mapped(sync, names, threads=width, ahead=width, settle=True):
        pass


def at_once(fd: int, count: int) -> bool:
    """Say whether `flush` of the file system of ``fd`` may stand for ``count`` syncs there."""
    return count >= _MANY and _tells() and kind_of(fd) in _SURE


def flush(fd: int) -> None:
    """Return when everything on the file system of ``fd`` is on disk; raise OSError."""
    if _libc().syncfs(fd):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


@cache
def _tells() -> bool:
    """Say whether the kernel has the call, with errors that are told."""
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    new = release is not None and (int(release[1]), int(release[2])) >= _KERNEL
    return new and hasattr(_libc(), "syncfs")


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
