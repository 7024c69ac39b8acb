"""Names in a directory of ours, reached by held descriptors and never through a link."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sekisho.domain.errors import Conflict, StorageFull, Unavailable
from sekisho.domain.files import RelPath

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def check_into(directory: Path) -> None:
    """Raise Conflict(`fetch.into`) for a directory in which no file could be put, there or not."""
    here = directory.absolute()
    while not os.path.lexists(here):
        here = here.parent
    if not here.is_dir():
        raise Conflict("fetch.into", directory=str(directory), why=os.strerror(errno.ENOTDIR))
    if not os.access(here, os.W_OK | os.X_OK):
        raise Conflict("fetch.into", directory=str(directory), why=os.strerror(errno.EACCES))


def locked(root: int, name: str) -> int:
    """Open the folder ``name`` of ``root``, made when it is not there, for us alone."""
    with translated():
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=root)
        folder = os.open(name, _FOLDER, dir_fd=root)
    seen = os.fstat(folder)
    if seen.st_uid != os.geteuid() or seen.st_mode & 0o077:
        os.close(folder)
        raise Conflict("fetch.blocked", path=name)  # somebody else's: what is in it may be a trap
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(folder)
        raise Conflict("fetch.busy") from error
    return folder


def walked(root: int, parts: tuple[str, ...], *, make: bool = True) -> int:
    """Return a descriptor of the folder ``parts`` below ``root``, which the caller closes."""
    here = os.dup(root)
    for part in parts:
        try:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=here)
            below = os.open(part, _FOLDER, dir_fd=here)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise Conflict("fetch.blocked", path="/".join(parts)) from error
            raise
        finally:
            os.close(here)
        here = below
    return here


def rename(number: int, folder: int, path: RelPath, here: int) -> None:
    """Give the part ``number`` of ``folder`` the last part of ``path`` as its name in ``here``."""
    try:
        os.rename(str(number), path.parts[-1], src_dir_fd=folder, dst_dir_fd=here)
    except (IsADirectoryError, NotADirectoryError) as error:
        raise Conflict("fetch.blocked", path=str(path)) from error


def no_room(error: OSError) -> bool:
    """Say whether ``error`` means that there is no room: the disk, or a quota, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raise what the disk says as StorageFull or Unavailable."""
    try:
        yield
    except OSError as error:
        if no_room(error):
            raise StorageFull("fetch.disk_full") from error
        raise Unavailable("fetch.io", why=os.strerror(error.errno or 0)) from error
