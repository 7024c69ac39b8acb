"""Chunks on the wire: a stream of frames, each a digest, a word and the content.

    frame  = digest (32 bytes) | word (4 bytes, big endian) | payload
    word   = length of the payload; its highest bit says that the payload is one zstd frame
    stream = frame*            (no header, no end mark: the end is the end of the body)

The digest is always that of the content. A packed payload states how long its content is, and is
refused before anything is unpacked when that is more than a chunk may be. A list of digests is 32
bytes each; a list of chunks 36 bytes each (digest, length). The reader holds at most one frame.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NewType

from sekisho.domain.errors import IntegrityError, TooLarge, UsageError
from sekisho.domain.limits import DIGEST_BYTES, MAX_CHUNK_BYTES, MAX_DIGESTS

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_HEAD: Final = struct.Struct(">32sI")
FRAME_HEAD_BYTES: Final = _HEAD.size
_PACKED: Final = 1 << 31
#: How every packed payload begins, and hardly any other.
PACKED_MAGIC: Final = b"\x28\xb5\x2f\xfd"
#: As quick as level 1, but with few and long matches only: in columns of numbers the short ones
#: that it finds are by chance, cost time, and make the result longer (ADR 0004).
_PACKING: Final[dict[int, int]] = {
    zstd.CompressionParameter.strategy: zstd.Strategy.fast,
    zstd.CompressionParameter.min_match: 7,
    zstd.CompressionParameter.hash_log: 12,
}
#: No content is longer than this window, so that unpacking never holds more.
_UNPACKING: Final[dict[int, int]] = {
    zstd.DecompressionParameter.window_log_max: (MAX_CHUNK_BYTES - 1).bit_length()
}
#: Of longer content a sample decides whether packing pays.
_SAMPLE_BYTES: Final = 16 << 10


@dataclass(frozen=True, slots=True, order=True)
class Chunk:
    """A piece of content: ``digest`` is the SHA-256 of its ``size`` bytes, in hexadecimal.

    Without a digest it is a hole: so many zeros, which never travel.
    """

    digest: str
    size: int

    @property
    def hole(self) -> bool:
        return not self.digest


#: A chunk with bytes that were seen to be its own: made by whoever has compared their digest.
Sound = NewType("Sound", tuple[Chunk, bytes])


def digest_of(data: bytes | bytearray | memoryview) -> str:
    """Return the digest that names ``data``."""
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class Frame:
    """A chunk as it travels. What it holds is not known to be true before it is `opened`."""

    digest: str
    payload: bytes
    packed: bool = False

    def __bytes__(self) -> bytes:
        return self._head() + self.payload

    def _head(self) -> bytes:
        word = len(self.payload) | (_PACKED if self.packed else 0)
        return _HEAD.pack(bytes.fromhex(self.digest), word)

    def __len__(self) -> int:
        return _HEAD.size + len(self.payload)

    def pieces(self) -> tuple[bytes, bytes]:
        """Return its bytes in two, without copying the payload."""
        return self._head(), self.payload

    @property
    def chunk(self) -> Chunk:
        """What it says that it holds."""
        return Chunk(self.digest, _stated(self.payload) if self.packed else len(self.payload))

    def opened(self) -> Sound:
        """Return the verified content; raise IntegrityError, or TooLarge before unpacking it."""
        return verified(self.unpacked())

    def unpacked(self) -> tuple[Chunk, bytes]:
        """Return what is to be verified; raise as `opened` does when it cannot be unpacked."""
        data = _unpacked(self.payload) if self.packed else self.payload
        return Chunk(self.digest, len(data)), data


def verified(piece: tuple[Chunk, bytes]) -> Sound:
    """Return ``piece`` if its bytes are those of its chunk; else raise IntegrityError."""
    chunk, data = piece
    if digest_of(data) != chunk.digest:
        raise IntegrityError("chunk.digest")
    return Sound(piece)


def packed(digest: str, data: bytes) -> Frame:
    """Return the frame of a chunk, packed when that saves a tenth or more."""
    if _worth_it(data):
        payload = zstd.compress(data, options=_PACKING)
        if _saves(len(payload), len(data)):
            return Frame(digest, payload, packed=True)
    return Frame(digest, data)


def _worth_it(data: bytes) -> bool:
    if len(data) < 2 * _SAMPLE_BYTES:
        return True
    middle = len(data) // 2
    sample = zstd.compress(data[middle : middle + _SAMPLE_BYTES], options=_PACKING)
    return _saves(len(sample), _SAMPLE_BYTES)


def _saves(after: int, before: int) -> bool:
    return 10 * after <= 9 * before


def _unpacked(payload: bytes) -> bytes:
    size = _stated(payload)
    unpacking = zstd.ZstdDecompressor(options=_UNPACKING)
    try:
        data = unpacking.decompress(payload, max_length=size)
    except zstd.ZstdError as error:
        raise IntegrityError("chunk.digest") from error
    if len(data) != size or not unpacking.eof or unpacking.unused_data:
        raise IntegrityError("chunk.digest")
    return data


def _stated(payload: bytes) -> int:
    try:
        size: int | None = zstd.get_frame_info(payload).decompressed_size
    except zstd.ZstdError as error:
        raise IntegrityError("chunk.digest") from error
    if not size:
        raise IntegrityError("chunk.digest")
    if size > MAX_CHUNK_BYTES:
        raise TooLarge("chunk.too_large", limit=MAX_CHUNK_BYTES)
    return size


def frame(digest: str, data: bytes) -> bytes:
    """Return one frame, not packed."""
    return bytes(Frame(digest, data))


def frames(chunks: Iterable[tuple[str, bytes]]) -> Iterator[bytes]:
    """Return the frames of ``chunks`` (digest, bytes), not packed."""
    return (frame(digest, data) for digest, data in chunks)


class FrameReader:
    """Cuts a stream back into chunks. Feed it what arrives; call `end` after the last."""

    def __init__(self) -> None:
        self._pieces: deque[memoryview] = deque()
        self._held = 0
        self._head: tuple[bytes, int] | None = None  #: of the frame whose payload is awaited

    def feed(self, data: bytes) -> list[Sound]:
        """Return the chunks that ``data`` completes, verified; raise as `Frame.opened` does."""
        return [frame.opened() for frame in self.split(data)]

    def split(self, *data: bytes) -> list[Frame]:
        """Return the frames that ``data`` completes, not opened yet. Each byte is copied once."""
        for piece in filter(None, data):
            self._pieces.append(memoryview(piece))
            self._held += len(piece)
        done: list[Frame] = []
        while True:
            if self._head is None:
                if self._held < _HEAD.size:
                    return done
                self._head = _HEAD.unpack(self._take(_HEAD.size))
            digest, word = self._head
            length = word & ~_PACKED
            if length > MAX_CHUNK_BYTES:
                raise TooLarge("chunk.too_large", limit=MAX_CHUNK_BYTES)
            if self._held < length:
                return done
            done.append(Frame(digest.hex(), self._take(length), packed=word != length))
            self._head = None

    def _take(self, size: int) -> bytes:
        """Return the first ``size`` bytes of those held."""
        self._held -= size
        taken: list[memoryview] = []
        while size:
            piece = self._pieces.popleft()
            if len(piece) > size:
                self._pieces.appendleft(piece[size:])
                piece = piece[:size]
            taken.append(piece)
            size -= len(piece)
        return b"".join(taken)

    def end(self) -> None:
        """Raise IntegrityError when the stream stopped within a frame."""
        if self._held or self._head is not None:
            raise IntegrityError("chunk.truncated")


def pack_chunks(chunks: Iterable[Chunk]) -> bytes:
    """Return ``chunks`` as a list of 36 bytes each."""
    return b"".join(_HEAD.pack(bytes.fromhex(c.digest), c.size) for c in chunks)


def unpack_chunks(body: bytes) -> list[Chunk]:
    """Return the chunks listed in ``body``; raise UsageError or TooLarge."""
    if len(body) % _HEAD.size:
        raise UsageError("message.invalid", why="length")
    if len(body) // _HEAD.size > MAX_DIGESTS:
        raise TooLarge(limit=MAX_DIGESTS * _HEAD.size)
    chunks = [Chunk(digest.hex(), size) for digest, size in _HEAD.iter_unpack(body)]
    if any(c.size > MAX_CHUNK_BYTES for c in chunks):
        raise TooLarge("chunk.too_large", limit=MAX_CHUNK_BYTES)
    return chunks


def pack_digests(digests: Iterable[str]) -> bytes:
    """Return ``digests`` as a list of 32 bytes each."""
    return b"".join(bytes.fromhex(d) for d in digests)


def unpack_digests(body: bytes) -> list[str]:
    """Return the digests listed in ``body``; raise UsageError or TooLarge."""
    if len(body) % DIGEST_BYTES:
        raise UsageError("message.invalid", why="length")
    if len(body) // DIGEST_BYTES > MAX_DIGESTS:
        raise TooLarge(limit=MAX_DIGESTS * DIGEST_BYTES)
    return [body[n : n + DIGEST_BYTES].hex() for n in range(0, len(body), DIGEST_BYTES)]
