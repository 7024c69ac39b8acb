"""What the runner needs of a stock: input files that were brought once, for more than one job."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from sekisho.domain.files import RelPath
from sekisho.domain.manifest import Command
from sekisho.domain.resources import LOCAL
from sekisho.site.workplace import Place
from sekisho.transfer.pack import SMALL_BYTES
from sekisho.transfer.tree import Tree, TreeFile


class Stock(Protocol):
    """Inputs kept as whole files, apart for each submitter, for the jobs that bring them again.

    Synchronous: called in worker threads. Nothing here is owed: a file that cannot be kept or lent
    is fetched as any other. No method raises but for SyncFailed.
    """

    @property
    def clones(self) -> bool:
        """Whether a file that a job may write to can be kept and lent: never the very same one."""
        ...

    def has(self, submitter: str, files: Sequence[TreeFile]) -> Collection[RelPath]:
        """Return which of ``files`` seem to be here. Nothing is read."""
        ...

    def lend(
        self,
        submitter: str,
        place: Place,
        files: Sequence[TreeFile],
        *,
        writable: bool,
        lasting: bool,
    ) -> Collection[RelPath]:
        """Put those of ``files`` that are here into ``input_dir``, and return which.

        They are what the list says, in place of whatever has their names; the job's own, with the
        mode that a fetched file has, if they are to be ``writable``, else without write permission.
        Those that are to be ``lasting`` are on disk.
        """
        ...

    def keep(
        self, submitter: str, place: Place, files: Sequence[TreeFile], *, writable: bool
    ) -> None:
        """Keep ``files``, which were just fetched into ``input_dir``, as far as there is room.

        They are for other jobs of ``submitter``. Unless they are to be ``writable``, take the write
        permission from all of them.
        """
        ...


def lendable(
    command: Command | None, tree: Tree, *, clones: bool
) -> list[tuple[bool, list[TreeFile]]]:
    """Return what of ``tree`` a stock may lend, by whether ``command`` may write to it.

    Only on the very machine where it is fetched. What may be written to is worth it from a certain
    size on, and only with ``clones``.
    """
    if command is None or command.venue.host != LOCAL:
        return []
    read = [file for file in tree.files if command.only_reads(file.path)]
    only = {file.path for file in read}
    own = [f for f in tree.files if clones and f.size >= SMALL_BYTES and f.path not in only]
    return [(writable, files) for writable, files in ((False, read), (True, own)) if files]


def without(tree: Tree, paths: Collection[RelPath]) -> Tree:
    """Return ``tree`` without the files ``paths``."""
    return Tree(tuple(file for file in tree.files if file.path not in paths)) if paths else tree
