"""Trees: sorted lists of files, each a name, a mode bit, a size and its chunks.

The digest of the list names the tree. The list has one canonical text, so that two parties that
see the same files speak of the same tree, whatever the times, owners and order of their disks.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from sekisho.domain.errors import IntegrityError, TooLarge, UsageError
from sekisho.domain.files import RelPath, key_of, keys_above
from sekisho.domain.limits import (
    CHUNK_BYTES,
    LEAST_MEAN_CHUNK_BYTES,
    LIST_BYTES_PER_CHUNK,
    LIST_BYTES_PER_FILE,
    MAX_CHUNK_BYTES,
    MAX_FILES,
    MAX_LIST_BYTES,
    SHORT_LIST_BYTES,
)
from sekisho.wire.envelope import ChunkRef, TreeRef
from sekisho.wire.frames import Chunk, digest_of

_HEADER: Final = b"sekisho-tree/2"


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
        return b"\n".join([_HEADER, *map(_text, self.files), b""])

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


def check_length(ref: TreeRef) -> None:
    """Raise TooLarge or UsageError for a list that is longer than any of so much can be.

    So much of a list is known, and true or refused in the end, before any of it is fetched.
    """
    size = sum(piece.size for piece in ref.index)
    if size > MAX_LIST_BYTES or any(piece.size > MAX_CHUNK_BYTES for piece in ref.index):
        raise TooLarge("tree.too_large", limit=MAX_LIST_BYTES)
    chunks = ref.size // LEAST_MEAN_CHUNK_BYTES
    most = LIST_BYTES_PER_FILE * ref.files + LIST_BYTES_PER_CHUNK * chunks
    if size > SHORT_LIST_BYTES + most:
        raise UsageError("tree.invalid", why="length")


def read_tree(text: bytes, ref: TreeRef) -> Tree:
    """Return the tree that ``ref`` names from its list; raise IntegrityError or UsageError."""
    return read_pieces([text], ref)


def read_pieces(text: Iterable[bytes], ref: TreeRef) -> Tree:
    """Return what `read_tree` does of a list that comes in pieces; never holds all of them."""
    whole = hashlib.sha256()
    tree = _lately.get(ref.digest)
    if tree is None:
        tree = Tree(tuple(_files(_lines(text, whole.update))))
    else:
        for piece in text:
            whole.update(piece)
    if whole.hexdigest() != ref.digest:
        raise IntegrityError("tree.digest")
    if (len(tree.files), tree.size) != (ref.files, ref.size):
        raise UsageError("tree.invalid", why="canonical")
    vars(tree)["digest"] = ref.digest  # was seen to be that of the text, which need not be made
    _hold(tree, sum(piece.size for piece in ref.index))
    return tree


#: The trees met last, by digest: a site meets one several times, and each time reads its list.
_lately: Final[dict[str, Tree]] = {}
_MOST_LATELY: Final = 2
#: So long may a list be that is held: it names some twenty thousand small files.
_LATELY_BYTES: Final = 2 << 20


def remember(tree: Tree) -> None:
    """Have the list of ``tree``, made here, not taken apart when it is read soon."""
    _hold(tree, len(tree.text))


def _hold(tree: Tree, size: int) -> None:
    if size <= _LATELY_BYTES:
        others = [digest for digest in [*_lately] if digest != tree.digest]
        for digest in others[: 1 - _MOST_LATELY]:
            _lately.pop(digest, None)  # another thread may have come before us
        _lately[tree.digest] = tree


def _files(lines: Iterable[bytes]) -> Iterator[TreeFile]:
    chunks: dict[Chunk, Chunk] = {}
    for number, line in enumerate(lines):
        if number == MAX_FILES:
            raise UsageError("tree.invalid", why="count")
        yield _file(line, chunks)


def _lines(text: Iterable[bytes], seen: Callable[[bytes], None]) -> Iterator[bytes]:
    """Return the lines after the header, without their ends, as soon as they are there."""
    entries, rest, headed = 0, list[bytes](), False
    for piece in text:
        seen(piece)
        entries += piece.count(b"[")
        if entries > _MAX_ENTRIES:
            raise UsageError("tree.invalid", why="count")
        begun, *others = piece.split(b"\n")
        rest.append(begun)
        for other in others:
            line, rest = b"".join(rest), [other]
            if headed:
                yield line
            elif line != _HEADER:
                raise UsageError("tree.invalid", why="version")
            headed = True
    if not headed or any(rest):
        raise UsageError("tree.invalid", why="form" if headed else "version")


def _text(file: TreeFile) -> bytes:
    pieces = [_Piece(c.digest, c.size) for c in file.chunks]
    line = _Line(str(file.path), file.executable, file.size, file.offset, pieces)
    return msgspec.json.encode(line)


def _file(text: bytes, chunks: dict[Chunk, Chunk]) -> TreeFile:
    """Return the file of a line; equal ``chunks`` are one object, for however many files."""
    try:
        line = msgspec.json.decode(text, type=_Line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError("tree.invalid", why="form") from error
    made = [Chunk(piece.digest, piece.size) for piece in line.chunks]
    pieces = tuple(chunks.setdefault(chunk, chunk) for chunk in made)
    file = TreeFile(RelPath.parse(line.path), line.executable, line.size, pieces, line.offset)
    if _text(file) != text:
        raise UsageError("tree.invalid", why="canonical")
    return file
