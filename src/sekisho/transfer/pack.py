"""Small files that share a chunk, so that ten thousand of them are not ten thousand chunks.

Where a pack ends follows from the name of a file: a file that comes, goes or changes leaves the
packs of the others as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Protocol, TypeVar

from sekisho.domain.files import RelPath
from sekisho.domain.limits import MAX_CHUNK_BYTES
from sekisho.transfer.tree import TreeFile
from sekisho.wire.frames import Chunk, digest_of

#: A smaller file shares its chunk with its neighbours.
SMALL_BYTES: Final = 128 << 10
#: How long a pack is on average.
_USUAL_BYTES: Final = 512 << 10


class Small(Protocol):
    """A small file, as far as packing wants to know it."""

    @property
    def path(self) -> RelPath: ...

    @property
    def size(self) -> int: ...


S = TypeVar("S", bound=Small)


def packed(files: Iterable[S]) -> Iterator[list[S]]:
    """Return small files that are not empty, in the order of a tree, pack by pack."""
    pack: list[S] = []
    size = 0
    for file in files:
        if pack and size + file.size > MAX_CHUNK_BYTES:
            yield pack
            pack, size = [], 0
        pack.append(file)
        size += file.size
        if _last(file):
            yield pack
            pack, size = [], 0
    if pack:
        yield pack


def members(pack: Iterable[tuple[RelPath, bool, int]], chunk: Chunk) -> Iterator[TreeFile]:
    """Return the files (path, executable, size) that make up ``chunk``, as a tree has them."""
    offset = 0
    for path, executable, size in pack:
        yield TreeFile(path, executable, size, (chunk,), offset)
        offset += size


def _last(file: Small) -> bool:
    """Say whether a pack ends with ``file``: the larger it is, the likelier."""
    return int(digest_of(str(file.path).encode())[:12], 16) % _USUAL_BYTES < file.size
