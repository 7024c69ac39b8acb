"""Where chunks end: what is promised of it, and that it never changes by itself."""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sekisho.domain.limits import MAX_CHUNK_BYTES, MIB
from sekisho.transfer.cut import LARGE_FILE_BYTES, LEAST_BYTES, as_chunk, cut, cut_solid
from sekisho.wire.frames import Chunk

_KNOWN = "6f652188391a2380ea4464e948c25d1b6f0f5720302b6602a80a3c06b721d951"
Sizes = st.integers(0, 6 * MIB)


def content(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def in_file(data: bytes, look: Callable[[int], list[bytes]]) -> list[bytes]:
    with tempfile.TemporaryDirectory() as home:
        place = Path(home, "file")
        place.write_bytes(data)
        with place.open("rb") as file:
            return look(file.fileno())


def pieces(data: bytes, start: int = 0) -> list[bytes]:
    return in_file(data, lambda fd: [bytes(p) for p in cut(fd, start, len(data) - start)])


@settings(max_examples=25, deadline=None)
@given(Sizes, st.integers(0, 2 * MIB))
@example(LEAST_BYTES, 0)
@example(4 * MIB, 0)
@example(4 * MIB + 1, 1)
def test_chunks_make_up_the_whole_within_their_bounds(size: int, start: int) -> None:
    """Kills: a tail that is dropped or empty, a chunk across a window that is too long."""
    data = content(size)
    found = pieces(data, min(start, size))
    assert b"".join(found) == data[start:]
    assert all(LEAST_BYTES <= len(p) <= MAX_CHUNK_BYTES for p in found[:-1])
    assert all(0 < len(p) <= MAX_CHUNK_BYTES for p in found)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 100_000), st.integers(0, 8 * MIB))
def test_what_is_inserted_changes_only_what_it_touches(length: int, at: int) -> None:
    """Kills: boundaries at fixed distances, boundaries that depend on the window of reading."""
    data = content(9 * MIB)
    changed = data[:at] + content(length, seed=1) + data[at:]
    new = set(pieces(changed)) - set(pieces(data))
    assert sum(map(len, new)) <= length + 4 * MAX_CHUNK_BYTES
    assert len(set(pieces(changed)) & set(pieces(data))) > 15


def test_a_file_that_ends_early_gives_what_there_is() -> None:
    data = content(MIB)
    assert b"".join(in_file(data, lambda fd: [bytes(p) for p in cut(fd, 0, 9 * MIB)])) == data


def test_a_large_file_has_fewer_and_longer_chunks() -> None:
    """Kills: one size for all: of what a broker keeps of a large file, twice as many files."""
    data = content(8 * MIB)
    found = {}
    for size in (LARGE_FILE_BYTES - 1, LARGE_FILE_BYTES):
        cut = cut_solid(size, lambda offset, length: data[offset : offset + length])
        found[size] = [len(piece) for piece in cut]
        assert sum(found[size]) == len(data)
    usual, large = found.values()
    assert min(usual[:-1]) < 256 << 10 <= min(large[:-1])
    assert len(large) < 0.7 * len(usual)


def test_the_longest_chunk_of_zeros_is_a_hole() -> None:
    """Kills: zeros that travel as often as somebody has written them out."""
    assert as_chunk(memoryview(bytes(MAX_CHUNK_BYTES))) == Chunk("", MAX_CHUNK_BYTES)
    assert not as_chunk(memoryview(bytes(MAX_CHUNK_BYTES - 1))).hole


def test_boundaries_are_those_of_every_earlier_version() -> None:
    data = content(8 * MIB) + bytes(2 * MIB) + b"node,1.0,2.0,3.0\n" * 50_000
    sizes = [len(p) for p in pieces(data)]
    assert sizes[:4] == [319853, 278755, 278851, 315178]
    assert hashlib.sha256(repr(sizes).encode()).hexdigest() == _KNOWN
