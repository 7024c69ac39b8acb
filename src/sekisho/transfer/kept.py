"""What an earlier fetch left here, for one that brings much of the same there again.

Nothing is asked of the other side that one of our own results holds. Only files that we wrote
ourselves, and that look as they did then, are read; what is read is verified as if it had come.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from sekisho.domain.errors import IntegrityError
from sekisho.transfer.pipeline import mapped
from sekisho.transfer.port import ChunkSource
from sekisho.transfer.remembered import WORTH_BYTES, Look, Remembered
from sekisho.transfer.tree import Tree, TreeFile
from sekisho.wire.frames import Chunk, Sound, verified


class Kept:
    """A ChunkSource: ``source``, but for what the files named by a tree in a directory hold."""

    def __init__(self, source: ChunkSource, at: dict[str, tuple[Path, int]]) -> None:
        self._source = source
        self._at = at

    @classmethod
    def of(cls, tree: Tree, directory: Path, source: ChunkSource, remembered: Remembered) -> Self:
        """Return ``source`` with what ``remembered`` knows to lie where ``tree`` is to be."""
        at: dict[str, tuple[Path, int]] = {}
        for place, _ in _large(tree, directory):
            with suppress(OSError):
                offset = 0
                for chunk in remembered.recall(Look.of(place.lstat())) or ():
                    if chunk.digest:  # a hole is neither asked for nor read
                        at.setdefault(chunk.digest, (place, offset))
                    offset += chunk.size
        return cls(source, at)

    def fetch(self, chunks: Sequence[Chunk]) -> Iterator[Sound]:
        away = [chunk for chunk in chunks if chunk.digest not in self._at]
        here = (chunk for chunk in chunks if chunk.digest in self._at)
        for chunk, sound in mapped(lambda chunk: (chunk, self._read(chunk)), here):
            if sound is None:
                away.append(chunk)
            else:
                yield sound
        yield from self._source.fetch(away)

    def _read(self, chunk: Chunk) -> Sound | None:
        place, offset = self._at[chunk.digest]
        with suppress(OSError, IntegrityError), place.open("rb") as file:
            file.seek(offset)
            return verified((chunk, file.read(chunk.size)))
        return None


def remember(tree: Tree, directory: Path, remembered: Remembered) -> None:
    """Remember the files of ``tree``, which were just brought into ``directory``."""
    for place, file in _large(tree, directory):
        with suppress(OSError):
            remembered.keep(Look.of(place.lstat()), file.chunks)


def _large(tree: Tree, directory: Path) -> Iterator[tuple[Path, TreeFile]]:
    for file in tree.files:
        if file.size >= WORTH_BYTES:
            yield Path(directory, *file.path.parts), file
