"""Where the chunks of a file end: where its content says so, not at fixed distances.

What is inserted into a file moves everything behind it, and still changes only the chunks that it
touches. FastCDC 2020 with the gear table of its authors (seed 0), normalisation level 2 and sizes
by the size of the file. Holes are looked up, not read. Whoever cuts otherwise makes valid trees
too, but shares no chunk with ours: another rule is a new version of the list (`transfer.tree`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from pyfastcdc import FastCDC

from sekisho.domain.limits import MAX_CHUNK_BYTES, MIB
from sekisho.transfer.holes import extents
from sekisho.wire.frames import Chunk, digest_of

#: The least and the usual size of a chunk.
LEAST_BYTES: Final = 64 << 10
_USUAL_BYTES: Final = 256 << 10
#: Both of a large file, of which a change is less: fewer chunks to speak of.
LARGE_FILE_BYTES: Final = 64 * MIB
_LARGE_LEAST_BYTES: Final = 256 << 10
_LARGE_USUAL_BYTES: Final = 512 << 10
#: So much of a file is in memory at a time.
_WINDOW_BYTES: Final = 4 * MIB
#: Gives the bytes at an offset: a length of them, or fewer where they end.
Read = Callable[[int, int], bytes]
_ZEROS: Final = digest_of(bytes(MAX_CHUNK_BYTES))


def cut(fd: int, start: int, size: int) -> Iterator[memoryview | int]:
    """Return ``size`` bytes of an open file from ``start``: chunks, and the lengths of holes.

    Fewer when the file ends before: whoever promised a size compares. The boundaries depend on
    nothing but these bytes, their number, and the holes.
    """
    cutter = _cutter(size)
    end = min(start + size, os.fstat(fd).st_size)
    for first, after in extents(fd, start, end):
        if first > start:
            yield first - start
        yield from _chunks(cutter, partial(_read, fd), first, after - first)
        start = after
    if start < end:
        yield end - start


def cut_solid(size: int, read: Read) -> Iterator[memoryview]:
    """Return the chunks of ``size`` bytes without holes, as far as ``read`` gives them."""
    return _chunks(_cutter(size), read, 0, size)


def as_chunk(piece: memoryview | int) -> Chunk:
    """Return what `cut` gave as a chunk; the longest one of nothing but zeros is a hole."""
    if isinstance(piece, int):
        return Chunk("", piece)
    digest = digest_of(piece)
    return Chunk("" if digest == _ZEROS else digest, len(piece))


def _cutter(size: int) -> FastCDC:
    """Return what cuts a file of ``size`` bytes."""
    least, usual = LEAST_BYTES, _USUAL_BYTES
    if size >= LARGE_FILE_BYTES:
        least, usual = _LARGE_LEAST_BYTES, _LARGE_USUAL_BYTES
    return FastCDC(usual, min_size=least, max_size=MAX_CHUNK_BYTES, normalized_chunking=2)


def _chunks(cutter: FastCDC, read: Read, start: int, size: int) -> Iterator[memoryview]:
    """Cut what ``read`` gives; what is too near to a window's end begins the next one."""
    last = False
    while not last and (window := read(start, length := min(size, _WINDOW_BYTES))):
        last = len(window) < length or length == size
        used = 0
        for chunk in cutter.cut_buf(window):
            if not last and len(window) - chunk.offset < MAX_CHUNK_BYTES:
                break  # where this one ends depends on what comes next
            used = chunk.offset + chunk.length
            yield memoryview(window)[chunk.offset : used]
        start, size = start + used, size - used


def _read(fd: int, offset: int, length: int) -> bytes:
    """Return ``length`` bytes, or fewer when the file ends before."""
    data = os.pread(fd, length, offset)
    if len(data) in (0, length):
        return data
    pieces = [data]
    while data := os.pread(fd, length - sum(map(len, pieces)), offset + sum(map(len, pieces))):
        pieces.append(data)
    return b"".join(pieces)
