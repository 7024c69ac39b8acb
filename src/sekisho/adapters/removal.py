"""Removing what jobs left behind, of any shape and depth, and nothing else.

What is to go is first renamed into a folder of ours, whole. There every directory that is met is
renamed, too, so that all of them lie side by side: two descriptors suffice for any depth, no link
is followed, and a mount point, which cannot be renamed, is never entered.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from sekisho.adapters.walk import Unsafe, opened_directory
from sekisho.transfer.mount import mount_of

#: Where things wait to be removed, in the base of all jobs; no name of a job begins with a dot.
TRASH: Final = ".trash"
_HANDLE: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove(base: int, parent: int, name: str) -> bool:
    """Remove ``name`` in ``parent``, below ``base``; say whether it and all of its kind are gone.

    May be repeated; what an interrupted or hindered removal left is removed by the next.
    """
    with _trash(base) as trash:
        moved = _discard(parent, name, trash)
        return _drain(trash) and moved


@contextmanager
def _trash(base: int) -> Iterator[int]:
    with suppress(FileExistsError):
        os.mkdir(TRASH, 0o700, dir_fd=base)
    with opened_directory(TRASH, base) as trash:
        yield trash


def _discard(parent: int, name: str, trash: int) -> bool:
    """Take ``name`` out of ``parent``: into the trash when it is a directory that holds things."""
    try:
        _unlink_or_move(parent, name, trash)
    except FileNotFoundError:
        pass
    except OSError:
        return False
    return True


def _unlink_or_move(parent: int, name: str, trash: int) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except IsADirectoryError:
        try:
            os.rmdir(name, dir_fd=parent)
        except OSError:
            _unlock(name, parent)  # a directory that changes its parent must be writable itself
            os.rename(name, secrets.token_hex(16), src_dir_fd=parent, dst_dir_fd=trash)


def _drain(trash: int) -> bool:
    stubborn: set[str] = set()
    while names := _names(trash) - stubborn:
        stubborn |= {name for name in names if not _empty_and_remove(trash, name)}
    return not stubborn


def _names(fd: int) -> set[str]:
    with os.scandir(fd) as entries:
        return {entry.name for entry in entries}


def _empty_and_remove(trash: int, name: str) -> bool:
    _unlock(name, trash)
    try:
        with opened_directory(name, trash) as fd:
            for child in _names(fd):
                _discard(fd, child, trash)
        os.rmdir(name, dir_fd=trash)
    except FileNotFoundError:
        return True
    except (Unsafe, OSError):
        return False
    return True


def _unlock(name: str, parent: int) -> None:
    """Give ourselves every right on our directory ``name``, whatever the job took away."""
    with suppress(OSError):
        handle = os.open(name, _HANDLE, dir_fd=parent)
        try:
            if mount_of(handle) != mount_of(parent):
                return  # whatever is mounted there is not the job's
            Path(f"/proc/self/fd/{handle}").chmod(0o700)  # the thing that is open, not its name
        finally:
            os.close(handle)
