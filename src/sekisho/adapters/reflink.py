"""Clones: files that share their blocks on disk until one of them is written to (XFS, btrfs).

A clone is a file of its own: what is written to either is not seen by the other. It takes no room
but for what is written to it later. Making one brings the original to the disk, and copies nothing.
Facts: ioctl_ficlone(2).
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

#: Machines on which another bit of the number of an ioctl says that it writes.
_OTHER_BITS: Final = ("ppc", "mips", "sparc", "alpha")
#: No such call, not between these two files, or not on this file system.
_REFUSALS: Final = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL})
_NAMELESS: Final = os.O_TMPFILE | os.O_CLOEXEC
_BLOCK: Final = bytes(4096)


def ficlone(machine: str) -> int:
    """Return the number of FICLONE, `_IOW(0x94, 9, int)`, on a machine as `uname -m` calls it."""
    write = 0x8 if machine.startswith(_OTHER_BITS) else 0x4
    return write << 28 | 4 << 16 | 0x94 << 8 | 9


#: Where it has yet another, the answer is ENOTTY: nothing is cloned, and `site check` says so.
_FICLONE: Final = ficlone(os.uname().machine)


def clone(from_fd: int, to_fd: int) -> bool:
    """Make the new file at ``to_fd``, open for writing, a clone; say whether that is to be had.

    If not, nothing has changed. Raise OSError when the disk says something else.
    """
    try:
        fcntl.ioctl(to_fd, _FICLONE, from_fd)
    except OSError as error:
        if error.errno in _REFUSALS:
            return False
        raise
    return True


@contextmanager
def cloned(fd: int, folder: int, mode: int) -> Iterator[int | None]:
    """Give a clone without a name, to be read and linked into ``folder``; None without clones.

    Nobody has it open for writing. ``mode`` is subject to the umask. Raise OSError.
    """
    made = os.open(".", _NAMELESS | os.O_WRONLY, mode, dir_fd=folder)
    try:
        ready = clone(fd, made)
        here = os.open(f"/proc/self/fd/{made}", os.O_RDONLY | os.O_CLOEXEC) if ready else None
    finally:
        os.close(made)
    try:
        yield here
    finally:
        if here is not None:
            os.close(here)


def can_clone(folder: Path) -> bool:
    """Try whether files in ``folder`` can be cloned. Nothing is left of it."""
    try:
        here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return _tried(here)
        finally:
            os.close(here)
    except OSError:
        return False


def _tried(folder: int) -> bool:
    fd = os.open(".", _NAMELESS | os.O_RDWR, 0o600, dir_fd=folder)
    try:
        os.write(fd, _BLOCK)
        with cloned(fd, folder, 0o600) as made:
            return made is not None
    finally:
        os.close(fd)
