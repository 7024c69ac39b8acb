"""Holes of files: ranges of zeros that take no room. Looked up, and seen to be empty."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: A shorter hole is read as what it stands for.
LEAST_HOLE_BYTES: Final = 256 << 10
_PIECE_BYTES: Final = 256 << 10
BLOCK_BYTES: Final = 512  #: of st_blocks, whatever those of the file system are


def extents(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Return where data begin and end between ``start`` and ``end``, in order.

    What is between them, or before or behind them, is a hole worth mentioning.
    """
    while (start := _data(fd, start, end)) < end:
        first, start = start, _hole(fd, start, end)
        while start < end and (after := _data(fd, start, end)) - start < LEAST_HOLE_BYTES:
            start = _hole(fd, after, end)
        yield first, start


def sparse(folder: Path) -> bool:
    """Say whether a file below ``folder`` takes so much less room than it is long."""
    seen = [file.stat() for file in folder.rglob("*") if file.is_file()]
    return any(spares(s.st_blocks * BLOCK_BYTES, s.st_size) for s in seen)


def spares(taken: int, size: int) -> bool:
    """Say whether ``size`` bytes that take the room of ``taken`` have holes worth keeping."""
    return taken + LEAST_HOLE_BYTES <= size


def empty(fd: int, start: int, size: int) -> None:
    """See that ``size`` bytes of a file from ``start`` are zeros; what is not is overwritten."""
    for place, length in _other_than_zeros(fd, start, start + size):
        os.pwrite(fd, bytes(length), place)


def vacant(fd: int, start: int, size: int) -> bool:
    """Say whether ``size`` bytes of a file from ``start`` are zeros."""
    return next(_other_than_zeros(fd, start, start + size), None) is None


def _other_than_zeros(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    while (start := _data(fd, start, end)) < end:
        length = min(_PIECE_BYTES, end - start)
        if any(os.pread(fd, length, start)):
            yield start, length
        start += length


def _data(fd: int, start: int, end: int) -> int:
    """Return where the next data are; a file system that knows of no holes has them everywhere."""
    return min(end, _seek(fd, start, os.SEEK_DATA, otherwise=start, nothing=end))


def _hole(fd: int, start: int, end: int) -> int:
    return min(end, _seek(fd, start, os.SEEK_HOLE, otherwise=end, nothing=end))


def _seek(fd: int, start: int, what: int, *, otherwise: int, nothing: int) -> int:
    try:
        return os.lseek(fd, start, what)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return nothing
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
            return otherwise
        raise
