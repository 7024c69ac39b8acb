"""What an open file holds, compared with what a list says of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from sekisho.transfer.holes import vacant
from sekisho.transfer.pipeline import mapped
from sekisho.transfer.tree import TreeFile
from sekisho.wire.frames import Chunk, digest_of

_WORTH_THREADS: Final = 16


def offsets(file: TreeFile) -> Iterator[tuple[Chunk, int]]:
    """Return the chunks of a file, and where in it they begin; not its holes."""
    return ((chunk, offset) for chunk, offset in _laid(file) if not chunk.hole)


def holes(file: TreeFile) -> Iterator[tuple[int, int]]:
    """Return where the holes of a file begin, and their sizes."""
    return ((offset, chunk.size) for chunk, offset in _laid(file) if chunk.hole)


def damaged(fd: int, file: TreeFile) -> list[Chunk]:
    """Return the chunks that ``fd`` does not hold where it should."""

    def wrong(place: tuple[Chunk, int]) -> Chunk | None:
        chunk, offset = place
        return None if digest_of(os.pread(fd, chunk.size, offset)) == chunk.digest else chunk

    places = offsets(file)
    looks = (
        map(wrong, places)
        if len(file.chunks) < _WORTH_THREADS
        else mapped(wrong, places, settle=True)
    )
    return [chunk for chunk in looks if chunk is not None]


def holds(fd: int, file: TreeFile) -> bool:
    """Say whether ``fd`` holds what ``file``, which shares no chunk with others, says it does."""
    if os.fstat(fd).st_size != file.size or damaged(fd, file):
        return False
    return all(vacant(fd, offset, size) for offset, size in holes(file))


def _laid(file: TreeFile) -> Iterator[tuple[Chunk, int]]:
    offset = 0
    for chunk in file.chunks:
        yield chunk, offset
        offset += chunk.size
