"""Files of old MInt programs as trees of chunks, and back. Never more than a chunk in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sekisho.broker.chunks import Chunks, Claim
from sekisho.domain.job import Job
from sekisho.domain.limits import CHUNK_BYTES, MIB
from sekisho.transfer.fetch import fetch_index
from sekisho.transfer.send import batched, send_tree
from sekisho.transfer.spooled import SpooledTree
from sekisho.transfer.tree import TreeFile
from sekisho.wire.envelope import TreeRef
from sekisho.wire.frames import Chunk, Frame, Sound
from sekisho.wire.mint_body import Content

#: Chunks that are stored together; bounds memory.
_TOGETHER: Final = 16 * MIB // CHUNK_BYTES


@dataclass(frozen=True, slots=True)
class JobChunks:
    """The chunks of one job, as `transfer` wants them."""

    chunks: Chunks
    claim: Claim
    job: Job

    def missing(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        absent = set(self.chunks.missing(self.claim, self.job.id, chunks))
        return [chunk for chunk in chunks if chunk.digest in absent]

    def send(self, chunks: Iterable[tuple[Chunk, bytes]]) -> None:
        for batch in batched(chunks, _TOGETHER):
            self.chunks.store(self.job, [Frame(chunk.digest, data) for chunk, data in batch])

    def fetch(self, chunks: Sequence[Chunk]) -> Iterator[Sound]:
        digests = list(dict.fromkeys(chunk.digest for chunk in chunks))
        _, found = self.chunks.fetch(self.job, digests, verify=True)
        return (Sound(frame.unpacked()) for frame in found)

    def store(self, spooled: SpooledTree) -> TreeRef:
        """Bring the tree into the job; may be repeated."""
        return send_tree(spooled.tree, spooled.read, self)

    def files(self, ref: TreeRef | None) -> dict[str, Content]:
        """Return the files of a tree that the job holds, by name."""
        if ref is None:
            return {}
        tree = fetch_index(ref, self)
        return {str(file.path): Content(file.size, self._pieces(file)) for file in tree.files}

    def _pieces(self, file: TreeFile) -> _Pieces:
        return _Pieces(self, file)


@dataclass(frozen=True, slots=True)
class _Pieces:
    """The bytes of one file, piece by piece."""

    port: JobChunks
    file: TreeFile

    def __call__(self) -> Iterator[bytes]:
        return self.file.content(lambda chunk: next(self.port.fetch([chunk]))[1])
