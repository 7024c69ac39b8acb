"""How a job is given a file that is kept for several: as a link if it only reads, or as a clone."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from sekisho.adapters.durable import sync
from sekisho.adapters.lease import leased, vouches
from sekisho.adapters.reflink import cloned
from sekisho.domain.files import RelPath
from sekisho.transfer.place import walked
from sekisho.transfer.tree import TreeFile


@dataclass(frozen=True, slots=True)
class Loan:
    """What one job is given, in its open directory ``work``.

    ``clones``: the file system is known to make some. Raises OSError, and Conflict(`fetch.blocked`)
    for a link in the way of a folder.
    """

    work: int
    writable: bool
    lasting: bool
    clones: bool

    def give(self, fd: int, file: TreeFile, *, link: bool) -> bool:
        """Put what is open at ``fd`` in the place of ``file``; say whether that could be done.

        A ``link`` if that may be and will do, else a clone.
        """
        here = walked(self.work, file.path.parts[:-1])
        try:
            with suppress(FileNotFoundError):  # what an earlier try left
                os.unlink(file.path.parts[-1], dir_fd=here)
            return (link and self._linked(fd, here, file)) or self._cloned(fd, here, file)
        finally:
            os.close(here)

    def settle(self, paths: Iterable[RelPath]) -> None:
        """Return when the names ``paths``, and the folders that they are in, last."""
        if not self.lasting:
            return
        folders = {path.parts[:depth] for path in paths for depth in range(len(path.parts))}
        for parts in folders:
            here = walked(self.work, parts, make=False)
            try:
                sync(here)
            finally:
                os.close(here)

    def _linked(self, fd: int, here: int, file: TreeFile) -> bool:
        if self.writable or not guarded(fd, file):
            return False
        try:
            name(fd, here, file.path.parts[-1])
        except OSError:  # too many links, or none are to be had
            return False
        self._settle(fd)
        return True

    def _cloned(self, fd: int, here: int, file: TreeFile) -> bool:
        if not self.clones:
            return False
        with cloned(fd, here, 0o755 if file.executable else 0o644) as own:
            if own is None or not (leased(fd) or not vouches(fd)):
                return False  # somebody opened the original for writing meanwhile
            if not self.writable:
                guarded(own, file)
            name(own, here, file.path.parts[-1])
            self._settle(own)
        return True

    def _settle(self, fd: int) -> None:
        if self.lasting:
            sync(fd)


def guarded(fd: int, file: TreeFile) -> bool:
    """Take the write permission from what is open at ``fd``; say whether that holds us back."""
    os.fchmod(fd, 0o555 if file.executable else 0o444)
    return not os.access(_path_of(fd), os.W_OK, effective_ids=True)


def name(fd: int, folder: int, text: str) -> None:
    """Give the very file that is open, whatever became of its name, the name ``text``."""
    os.link(_path_of(fd), text, dst_dir_fd=folder, follow_symlinks=True)


def _path_of(fd: int) -> str:
    return f"/proc/self/fd/{fd}"
