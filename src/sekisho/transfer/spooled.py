"""A tree whose files lie one behind the other in one file."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import IO

from sekisho.domain.files import RelPath
from sekisho.domain.limits import CHUNK_BYTES
from sekisho.transfer.tree import Tree, TreeFile
from sekisho.wire.frames import Chunk, Sound, digest_of, verified
from sekisho.wire.mint_body import Piece


class SpooledTree:
    """Files that lie in a spool, as a tree."""

    def __init__(self, spool: IO[bytes], files: Mapping[RelPath, Piece]) -> None:
        self._spool = spool
        self._guard = threading.Lock()
        self._at: dict[str, int] = {}
        self.tree = Tree(tuple(self._file(path, files[path]) for path in sorted(files)))

    def _file(self, path: RelPath, piece: Piece) -> TreeFile:
        chunks = []
        for offset in range(piece.offset, piece.offset + piece.size, CHUNK_BYTES):
            data = self._bytes(offset, min(CHUNK_BYTES, piece.offset + piece.size - offset))
            chunks.append(Chunk(digest_of(data), len(data)))
            self._at.setdefault(chunks[-1].digest, offset)
        return TreeFile(path, executable=False, size=piece.size, chunks=tuple(chunks))

    def _bytes(self, offset: int, size: int) -> bytes:
        with self._guard:
            self._spool.seek(offset)
            return self._spool.read(size)

    def read(self, chunk: Chunk) -> bytes:
        """Return the bytes of a chunk of the tree."""
        return self._bytes(self._at[chunk.digest], chunk.size)

    def fetch(self, chunks: Sequence[Chunk]) -> Iterator[Sound]:
        """Return chunks of the tree: it is a `transfer.port.ChunkSource`."""
        return (verified((chunk, self.read(chunk))) for chunk in chunks)
