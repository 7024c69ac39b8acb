"""Where the chunks of a file end: where its content says so, not at fixed distances.

What is inserted into a file moves everything behind it, and still changes only the chunks that it
touches. FastCDC 2020 with the gear table of its authors (seed 0), normalisation level 2 and the
sizes below. Whoever cuts otherwise makes valid trees too, but shares no chunk with ours: another
rule is a new version of the list of a tree (`transfer.tree`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from pyfastcdc import FastCDC

from sekisho.domain.limits import MAX_CHUNK_BYTES

LEAST_BYTES: Final = 64 << 10
_CENTRE_BYTES: Final = 256 << 10
#: So much of a file is in memory at a time.
_WINDOW_BYTES: Final = 4 << 20


def cut(fd: int, start: int, size: int) -> Iterator[memoryview]:
    """Return ``size`` bytes of an open file from ``start``, chunk by chunk.

    Fewer when the file ends before: whoever promised a size compares. The boundaries depend on
    nothing but these bytes.
    """
    cutter = FastCDC(
        _CENTRE_BYTES, min_size=LEAST_BYTES, max_size=MAX_CHUNK_BYTES, normalized_chunking=2
    )
    rest = b""
    while window := rest + _read(fd, start, min(size, _WINDOW_BYTES - len(rest))):
        read = len(window) - len(rest)
        start, size = start + read, size - read
        last = not size or not read
        used = 0
        for chunk in cutter.cut_buf(window):
            if not last and len(window) - chunk.offset < MAX_CHUNK_BYTES:
                break  # where this one ends depends on what comes next
            used = chunk.offset + chunk.length
            yield memoryview(window)[chunk.offset : used]
        rest = window[used:]


def _read(fd: int, offset: int, length: int) -> bytes:
    """Return ``length`` bytes, or fewer when the file ends before."""
    data = os.pread(fd, length, offset)
    if len(data) in (0, length):
        return data
    pieces = [data]
    while data := os.pread(fd, length - sum(map(len, pieces)), offset + sum(map(len, pieces))):
        pieces.append(data)
    return b"".join(pieces)
