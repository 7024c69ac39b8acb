"""What the runner needs of a stock: input files that were brought once, for more than one job."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from sekisho.domain.files import RelPath
from sekisho.domain.manifest import Command
from sekisho.domain.resources import LOCAL
from sekisho.site.workplace import Place
from sekisho.transfer.tree import Tree, TreeFile


class Stock(Protocol):
    """Inputs that commands only read, kept as whole files, apart for each submitter.

    Synchronous: called in worker threads. Nothing here is owed: a file that cannot be kept or lent
    is fetched as any other. No method raises but for SyncFailed.
    """

    def has(self, submitter: str, files: Sequence[TreeFile]) -> Collection[RelPath]:
        """Return which of ``files`` seem to be here. Nothing is read."""
        ...

    def lend(
        self, submitter: str, place: Place, files: Sequence[TreeFile], *, lasting: bool
    ) -> Collection[RelPath]:
        """Put those of ``files`` that are here into ``input_dir``, and return which.

        They are what the list says, without write permission, and in place of whatever has their
        names. Those that are to be ``lasting`` are on disk.
        """
        ...

    def keep(self, submitter: str, place: Place, files: Sequence[TreeFile]) -> None:
        """Take the write permission from ``files``, which were just fetched into ``input_dir``.

        Keep them for other jobs of ``submitter``, as far as there is room.
        """
        ...


def lendable(command: Command | None, tree: Tree) -> list[TreeFile]:
    """Return what ``command`` only reads of ``tree``, on the very machine where it is fetched."""
    if command is None or command.venue.host != LOCAL:
        return []
    return [file for file in tree.files if command.only_reads(file.path)]


def without(tree: Tree, paths: Collection[RelPath]) -> Tree:
    """Return ``tree`` without the files ``paths``."""
    return Tree(tuple(file for file in tree.files if file.path not in paths)) if paths else tree
