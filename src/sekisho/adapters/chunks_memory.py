"""A ChunkPort in memory: what the other side would hold for one job."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sekisho.domain.errors import IntegrityError, NotFound
from sekisho.wire.frames import Chunk, Sound, digest_of


class MemoryChunks:
    """Obeys the port's contract; `held` are the bytes by digest, `declared` what may be stored."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.declared: set[Chunk] = set()

    def lacking(self) -> int:
        """Return how many declared chunks are not there."""
        return sum(c.digest not in self.held for c in self.declared)

    def missing(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        self.declared.update(chunks)
        return [c for c in dict.fromkeys(chunks) if c.digest not in self.held]

    def send(self, chunks: Iterable[tuple[Chunk, bytes]]) -> None:
        for chunk, data in chunks:
            if chunk not in self.declared:
                raise IntegrityError("chunk.undeclared")
            if Chunk(digest_of(data), len(data)) != chunk:
                raise IntegrityError("chunk.digest")
            self.held[chunk.digest] = data

    def fetch(self, chunks: Sequence[Chunk]) -> Iterator[Sound]:
        if any(c not in self.declared or c.digest not in self.held for c in chunks):
            raise NotFound("chunk.not_found")
        return (Sound((c, self.held[c.digest])) for c in dict.fromkeys(chunks))
