"""Bringing many files to the disk by one call, where that is as sure as a sync of each.

Each sync waits for the journal of the file system; `syncfs` waits once, for everything on it. It is
used where it is known to end when all is on disk: certain file systems of this machine, and kernels
that tell when something could not be written (Linux 5.8). Elsewhere whoever asks syncs each file.
"""

from __future__ import annotations

import ctypes
import os
import re
from functools import cache
from pathlib import Path
from typing import Final

#: From so many on, one call is worth that it waits for what others have written, too.
_MANY: Final = 64
_SURE: Final = frozenset({"ext4", "xfs", "tmpfs"})
_KERNEL: Final = (5, 8)


def at_once(fd: int, count: int) -> bool:
    """Say whether `flush` of the file system of ``fd`` may stand for ``count`` syncs there."""
    return count >= _MANY and _tells() and _kind(os.fstat(fd).st_dev) in _SURE


def flush(fd: int) -> None:
    """Return when everything on the file system of ``fd`` is on disk; raise OSError."""
    if _libc().syncfs(fd):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _kind(device: int) -> str:
    """Return the kind of the file system ``device``, as far as it is mounted under that number."""
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines():
        mount, _, system = line.partition(" - ")
        if mount.split(" ", 3)[2] == number:
            return system.split(" ", 1)[0]
    return ""


@cache
def _tells() -> bool:
    """Say whether the kernel has the call, with errors that are told."""
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    new = release is not None and (int(release[1]), int(release[2])) >= _KERNEL
    return new and hasattr(_libc(), "syncfs")


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
