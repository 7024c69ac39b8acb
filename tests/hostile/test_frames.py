"""Frames made to hurt: bombs, lies about lengths, wrong digests. Nothing of them is kept."""

from __future__ import annotations

import os
import random
import sys
import time
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.domain.errors import IntegrityError, SekishoError, TooLarge, UsageError
from sekisho.domain.limits import MAX_CHUNK_BYTES, MIB
from sekisho.transfer.tree import read_tree
from sekisho.wire.envelope import TreeRef
from sekisho.wire.frames import PACKED_MAGIC, Frame, FrameReader, digest_of, frame, packed

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: Kinds of blocks in a frame of zstd: bytes as they are, one byte many times.
RAW, RLE = 0, 1
TEXT = b"node 1.0 2.0 3.0\n" * 20_000


def test_text_travels_packed_and_noise_as_it_is() -> None:
    noise = os.urandom(300_000)
    assert len(packed(digest_of(TEXT), TEXT)) < len(TEXT) // 10
    assert bytes(packed(digest_of(noise), noise)) == frame(digest_of(noise), noise)


def test_a_sample_from_the_middle_decides_whether_packing_is_tried() -> None:
    """Kills: all of a database packed for the zeros that it begins with."""
    noise, zeros = os.urandom(100_000), bytes(50_000)
    for data, tried in ((zeros + noise + zeros, False), (noise + zeros + noise, True)):
        assert len(zstd.compress(data)) < 0.9 * len(data)  # the control: it would have paid
        assert packed(digest_of(data), data).packed is tried


def test_columns_of_numbers_travel_shorter_than_by_level_1_for_half_the_price_of_level_3() -> None:
    """Kills: another strategy, shortest match or table; each is slower, or longer by a part."""
    dice = random.Random(4)
    numbers = (
        f"{n:8d}{dice.uniform(-9, 9):16.8e}{dice.uniform(-9, 9):16.8e}" for n in range(20_000)
    )
    deck = "\n".join(numbers).encode()

    def seconds(pack: Callable[[], object]) -> float:
        begun = time.thread_time()
        pack()
        return time.thread_time() - begun

    def ours() -> Frame:
        return packed("0" * 64, deck)

    assert len(ours().payload) < 0.965 * len(zstd.compress(deck, 1))
    pairs = [(seconds(ours), seconds(lambda: zstd.compress(deck, 3))) for _ in range(9)]
    assert min(our for our, _ in pairs) < 0.7 * min(their for _, their in pairs)


def test_what_packing_hardly_makes_shorter_travels_as_it_is() -> None:
    """Kills: a receiver that unpacks for the sake of a few bytes."""
    for zeros, pays in ((50, False), (500, True)):
        data = os.urandom(1000) + bytes(zeros)
        assert len(zstd.compress(data)) < len(data)
        assert packed(digest_of(data), data).packed is pays


@given(st.binary(min_size=1, max_size=5000), st.integers(1, 100), st.integers(1, 999))
def test_a_stream_cut_anywhere_gives_what_was_put_in(data: bytes, times: int, step: int) -> None:
    """Kills: a flag read as a length, a packed frame handed on as it is."""
    content = data * times
    stream = bytes(packed(digest_of(content), content)) + frame(digest_of(data), data)
    reader = FrameReader()
    found = [
        plain
        for at in range(0, len(stream), step)
        for _, plain in reader.feed(stream[at : at + step])
    ]
    reader.end()
    assert found == [content, data]


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = Frame("0" * 64, zstd.compress(bytes(256 * MIB)), packed=True)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            FrameReader().feed(bytes(bomb))
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


def lying(says: int) -> bytes:
    """Return an honest frame of zstd with another length of content written into it."""
    honest = bytearray(zstd.compress(bytes(100_000)))
    assert int.from_bytes(honest[5:9], "little") == 100_000
    honest[5:9] = says.to_bytes(4, "little")
    return bytes(honest)


def streamed() -> bytes:
    made = zstd.ZstdCompressor()
    return made.compress(TEXT) + made.flush()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"not packed at all",
        zstd.compress(b""),
        zstd.compress(TEXT)[:-1],
        zstd.compress(TEXT) + b"x",
        zstd.compress(TEXT) + zstd.compress(TEXT),
        zstd.compress(TEXT[:-1]),
        streamed(),
        lying(99_999),
        lying(100_001),
    ],
)
def test_a_payload_that_is_not_exactly_the_content_is_refused(payload: bytes) -> None:
    with pytest.raises(IntegrityError):
        Frame(digest_of(TEXT), payload, packed=True).opened()
    with pytest.raises(IntegrityError):
        Frame(digest_of(bytes(100_000)), payload, packed=True).opened()


def blocks(*made: bytes, states: int) -> bytes:
    """Return a frame of zstd, by hand: it states a length of content, and has these blocks."""
    head = bytes([0x80, 10 << 3]) + states.to_bytes(4, "little")
    return PACKED_MAGIC + head + b"".join(made)


def block(kind: int, size: int, data: bytes, *, last: bool = True) -> bytes:
    return (size << 3 | kind << 1 | last).to_bytes(3, "little") + data


def test_content_longer_than_was_stated_is_not_unpacked() -> None:
    """Kills: four bytes that become 128 KiB, again and again."""
    many = [block(RLE, 128 << 10, b"x", last=False)] * 500
    bomb = Frame("0" * 64, blocks(*many, block(RLE, 1, b"x"), states=1000), packed=True)
    tracemalloc.start()
    try:
        with pytest.raises(IntegrityError):
            bomb.opened()
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


def test_a_frame_whose_end_is_missing_is_refused_though_its_content_is_there() -> None:
    text = b"nodes and elements"
    for last in (True, False):
        payload = blocks(block(RAW, len(text), text, last=last), states=len(text))
        found = Frame(digest_of(text), payload, packed=True)
        if last:
            assert found.opened()[1] == text  # the control: made by hand, and right
            continue
        with pytest.raises(IntegrityError):
            found.opened()


@given(st.binary(max_size=300))
def test_no_payload_makes_anything_but_an_error_of_ours(payload: bytes) -> None:
    """Kills: an error of the library that escapes."""
    with pytest.raises(SekishoError):
        Frame("0" * 64, payload, packed=True).opened()


def test_a_length_beyond_the_limit_is_refused_before_a_byte_of_it_is_kept() -> None:
    for word in (MAX_CHUNK_BYTES + 1, (1 << 31) | (MAX_CHUNK_BYTES + 1)):
        with pytest.raises(TooLarge):
            FrameReader().feed(bytes(32) + word.to_bytes(4, "big"))


def test_a_list_that_would_grow_beyond_all_bounds_is_refused_before_it_is_read() -> None:
    """Kills: eight bytes of a list, a hole of one byte, that become a hundred in memory."""
    number = 1 << 22
    holes = b",".join([b'["",1]'] * number)
    text = b'sekisho-tree/2\n["a",false,%d,0,[%s]]\n' % (number, holes)
    ref = TreeRef(digest=digest_of(text), files=1, size=number, index=[])
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match=r"tree\.invalid.*count"):
            read_tree(text, ref)
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()
