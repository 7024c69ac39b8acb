"""Files of old MInt programs as trees of chunks, and back. Never more than a chunk in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Final

from sekisho.broker.chunks import Chunks, Claim
from sekisho.domain.errors import UsageError
from sekisho.domain.files import Pattern, RelPath
from sekisho.domain.job import Job
from sekisho.domain.limits import CHUNK_BYTES, MIB
from sekisho.transfer.fetch import fetch_index
from sekisho.transfer.send import batched, send_tree
from sekisho.transfer.tree import Tree, TreeFile
from sekisho.wire.envelope import TreeRef
from sekisho.wire.frames import Chunk, Frame, digest_of
from sekisho.wire.mint_body import Content, Piece

#: Chunks that are stored together; bounds memory.
_TOGETHER: Final = 16 * MIB // CHUNK_BYTES
#: A file of one chunk is looked at, whether it is text; a longer one is not read for that.
_TEXT: Final = "text/plain;"
_BINARY: Final = ("application/octet-stream;", "charset=binary")


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

    def fetch(self, chunks: Sequence[Chunk]) -> Iterator[tuple[Chunk, bytes]]:
        _, found = self.chunks.fetch(self.job, list(dict.fromkeys(c.digest for c in chunks)))
        return (frame.opened() for frame in found)

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
        return _Pieces(self, file.chunks)


@dataclass(frozen=True, slots=True)
class _Pieces:
    """The bytes of one file, chunk by chunk."""

    port: JobChunks
    chunks: tuple[Chunk, ...]

    def __call__(self) -> Iterator[bytes]:
        for chunk in self.chunks:
            yield from (data for _, data in self.port.fetch([chunk]))


class SpooledTree:
    """Files that lie in a spool, as a tree."""

    def __init__(self, spool: IO[bytes], files: Mapping[RelPath, Piece]) -> None:
        self._spool = spool
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
        self._spool.seek(offset)
        return self._spool.read(size)

    def read(self, chunk: Chunk) -> bytes:
        """Return the bytes of a chunk of the tree."""
        return self._bytes(self._at[chunk.digest], chunk.size)


def kind_of(content: Content) -> tuple[str, str]:
    """Return MIME type and character set of a file, as old programs write them."""
    if content.size > CHUNK_BYTES:
        return _BINARY
    data = b"".join(content.pieces())
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return _BINARY
    if "\0" in text:
        return _BINARY
    return _TEXT, "charset=us-ascii" if text.isascii() else "charset=utf-8"


def input_name(text: str) -> RelPath:
    """Return the name of an input: what stands behind its last slash, if that is safe."""
    return RelPath((text.rpartition("/")[2],))


def result_name(text: str) -> str:
    """Return the name of a result when it is safe and means one file; else raise UsageError."""
    RelPath.parse(text)
    if not Pattern(text).literal:
        raise UsageError("path.invalid", path=text[:200], why="pattern")
    return text
