"""ChunkPort over chunks that are on this machine already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sekisho.site.push import ChunkShelf
from sekisho.wire.frames import Chunk, Frame


class LocalChunks:
    """The chunks of one ``space`` of a shelf."""

    def __init__(self, shelf: ChunkShelf, space: str) -> None:
        self._shelf = shelf
        self._space = space

    def missing(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        lacking = set(self._shelf.missing(self._space, [c.digest for c in chunks]))
        return [c for c in chunks if c.digest in lacking]

    def send(self, chunks: Iterable[tuple[Chunk, bytes]]) -> None:
        for chunk, data in chunks:
            self._shelf.put(self._space, [Frame(chunk.digest, data)])

    def fetch(self, chunks: Sequence[Chunk]) -> Iterator[tuple[Chunk, bytes]]:
        return (self._shelf.read(self._space, chunk.digest).opened() for chunk in chunks)
