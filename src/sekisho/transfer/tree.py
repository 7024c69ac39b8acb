"""Trees: sorted lists of files, each a name, a mode bit, a size and its chunks.

The digest of the list names the tree. The list has one canonical text, so that two parties that
see the same files speak of the same tree, whatever the times, owners and order of their disks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from sekisho.domain.errors import IntegrityError, UsageError
from sekisho.domain.files import RelPath, key_of, keys_above
from sekisho.domain.limits import CHUNK_BYTES, MAX_CHUNK_BYTES, MAX_FILES
from sekisho.wire.envelope import ChunkRef, TreeRef
from sekisho.wire.frames import Chunk, digest_of

_HEADER: Final = b"sekisho-tree/2\n"


#: So many files, chunks and holes a list may name, told by its brackets before anything is made of
#: them: no list of real chunks within the bound of its length has more, one of bytes and holes had.
_MAX_ENTRIES: Final = 1 << 22
#: Zeros are made in pieces of this size.
_ZEROS: Final = bytes(64 << 10)


class _Piece(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    digest: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?$(?!\n)")]
    size: Annotated[int, Meta(gt=0)]


class _Line(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    path: str
    executable: bool
    size: Annotated[int, Meta(ge=0)]
    offset: Annotated[int, Meta(ge=0)]
    chunks: list[_Piece]


@dataclass(frozen=True, slots=True, order=True)
class TreeFile:
    """One file of a tree: ``size`` bytes of its ``chunks`` in their order, from ``offset`` on.

    Only a file that shares its chunk with others has one chunk that is longer than itself.
    """

    path: RelPath
    executable: bool
    size: int
    chunks: tuple[Chunk, ...]
    offset: int = 0

    def __post_init__(self) -> None:
        if self.shared:
            wrong = len(self.chunks) != 1 or self.chunks[0].hole or not self.size
            wrong = wrong or self.offset + self.size > self.chunks[0].size
        else:
            wrong = sum(c.size for c in self.chunks) != self.size
        if wrong:
            raise UsageError("tree.invalid", why="size")
        if any(c.size <= 0 or (c.size > MAX_CHUNK_BYTES and not c.hole) for c in self.chunks):
            raise UsageError("tree.invalid", why="chunk")

    @property
    def shared(self) -> bool:
        """Whether its chunk holds other files too."""
        return self.offset > 0 or (len(self.chunks) == 1 and self.chunks[0].size > self.size)

    def content(self, read: Callable[[Chunk], bytes]) -> Iterator[bytes]:
        """Return the bytes of the file, piece by piece, of chunks as ``read`` gives them."""
        for chunk in self.chunks:
            if chunk.hole:
                yield from zeros(chunk.size)
            elif self.shared:
                yield read(chunk)[self.offset : self.offset + self.size]
            else:
                yield read(chunk)


def zeros(size: int) -> Iterator[bytes]:
    """Return ``size`` zeros, piece by piece."""
    for start in range(0, size, len(_ZEROS)):
        yield _ZEROS[: size - start]


@dataclass(frozen=True)
class Tree:
    """A sorted list of files without two names that collide and without a file inside a file."""

    files: tuple[TreeFile, ...] = ()

    def __post_init__(self) -> None:
        if len(self.files) > MAX_FILES:
            raise UsageError("tree.invalid", why="count")
        names = [f.path.parts for f in self.files]
        if any(a >= b for a, b in itertools.pairwise(names)):
            raise UsageError("tree.invalid", why="order")
        keys = {key_of(parts) for parts in names}
        above = {parts[:-1] for parts in names}
        folders = {key for parts in above for key in keys_above(parts)}
        if len(keys) != len(names) or keys & folders:
            raise UsageError("tree.invalid", why="collision")
        if sum(len(numbers) for _, numbers in self.packs) != sum(f.shared for f in self.files):
            raise UsageError("tree.invalid", why="pack")

    @cached_property
    def packs(self) -> list[tuple[Chunk, tuple[int, ...]]]:
        """Return the shared chunks, each with the numbers of the files that make it up, in order.

        Raise UsageError for files that overlap in a chunk, or leave a part of it to nobody.
        """
        done: list[tuple[Chunk, tuple[int, ...]]] = []
        begun: dict[Chunk, tuple[int, list[int]]] = {}
        for number, file in enumerate(self.files):
            if not file.shared:
                continue
            chunk = file.chunks[0]
            end, numbers = begun.pop(chunk, (0, []))
            if file.offset != end:
                raise UsageError("tree.invalid", why="pack")
            end += file.size
            numbers.append(number)
            if end == chunk.size:
                done.append((chunk, tuple(numbers)))
            else:
                begun[chunk] = end, numbers
        return done

    @property
    def size(self) -> int:
        return sum(f.size for f in self.files)

    @cached_property
    def text(self) -> bytes:
        """The canonical list: a header, then one line of JSON for each file."""
        lines = (
            _Line(
                str(f.path),
                f.executable,
                f.size,
                f.offset,
                [_Piece(c.digest, c.size) for c in f.chunks],
            )
            for f in self.files
        )
        return _HEADER + b"".join(msgspec.json.encode(line) + b"\n" for line in lines)

    @cached_property
    def digest(self) -> str:
        return digest_of(self.text)

    def index(self) -> list[tuple[Chunk, bytes]]:
        """Return the list itself, cut into chunks: they travel like any other."""
        text = self.text
        pieces = (text[n : n + CHUNK_BYTES] for n in range(0, len(text), CHUNK_BYTES))
        return [(Chunk(digest_of(p), len(p)), p) for p in pieces]

    def ref(self) -> TreeRef:
        """Return what names this tree in an envelope."""
        return TreeRef(
            digest=self.digest,
            files=len(self.files),
            size=self.size,
            index=[ChunkRef(c.digest, c.size) for c, _ in self.index()],
        )

    def chunks(self) -> list[Chunk]:
        """Return every chunk that travels once, in the order of first use."""
        return list(dict.fromkeys(c for f in self.files for c in f.chunks if not c.hole))


def read_tree(text: bytes, ref: TreeRef) -> Tree:
    """Return the tree that ``ref`` names from its list; raise IntegrityError or UsageError."""
    if digest_of(text) != ref.digest:
        raise IntegrityError("tree.digest")
    if not text.startswith(_HEADER):
        raise UsageError("tree.invalid", why="version")
    if text.count(b"[") > _MAX_ENTRIES:
        raise UsageError("tree.invalid", why="count")
    try:
        lines = [msgspec.json.decode(x, type=_Line) for x in text[len(_HEADER) :].splitlines()]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError("tree.invalid", why="form") from error
    tree = Tree(tuple(_files(lines)))
    if tree.text != text or (len(tree.files), tree.size) != (ref.files, ref.size):
        raise UsageError("tree.invalid", why="canonical")
    return tree


class _Chunks(dict[_Piece, Chunk]):
    """The chunks of a list: each is one object, however many files it holds."""

    def __missing__(self, piece: _Piece) -> Chunk:
        self[piece] = chunk = Chunk(piece.digest, piece.size)
        return chunk


def _files(lines: Iterable[_Line]) -> Iterator[TreeFile]:
    chunks = _Chunks()
    for line in lines:
        pieces = tuple(chunks[piece] for piece in line.chunks)
        yield TreeFile(RelPath.parse(line.path), line.executable, line.size, pieces, line.offset)
