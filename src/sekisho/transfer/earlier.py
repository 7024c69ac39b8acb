"""What a part held when it was closed, for whoever goes on with it: it need not be read again.

The time of a file's last change cannot be set: one that looks as it did holds what it held.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self

from sekisho.transfer.port import ChunkSource
from sekisho.transfer.remembered import Look
from sekisho.transfer.tree import Tree
from sekisho.wire.frames import Chunk, Sound


@dataclass(frozen=True, slots=True)
class Earlier:
    """Sound chunks, and how the larger files of the part looked, by their numbers."""

    chunks: Set[Chunk]
    looks: Mapping[int, Look]

    @classmethod
    def of(cls, folder: int, numbers: Iterable[int], chunks: Iterable[Chunk]) -> Self:
        return cls(frozenset(chunks), {number: _look(folder, number) for number in numbers})

    def untouched(self, folder: int) -> set[int]:
        """Return the numbers of the files that look as they did."""
        found = set()
        for number, look in self.looks.items():
            with suppress(FileNotFoundError):
                if _look(folder, number) == look:
                    found.add(number)
        return found


@dataclass(frozen=True, slots=True)
class Begun:
    """A ChunkSource, of a tree with which this very process has begun before."""

    source: ChunkSource
    earlier: Earlier

    def fetch(self, chunks: Sequence[Chunk]) -> Iterator[Sound]:
        return self.source.fetch(chunks)


NOTHING_EARLIER: Final = Earlier(frozenset(), {})


def folder_of(tree: Tree) -> str:
    """Return the name of the part folder of ``tree``."""
    return f".sekisho-{tree.digest[:16]}.part"


def _look(folder: int, number: int) -> Look:
    return Look.of(os.stat(str(number), dir_fd=folder, follow_symlinks=False))
