"""Chunks on the wire: a stream of frames, each a digest, a length and the bytes.

    frame  = digest (32 bytes) | length (4 bytes, big endian) | payload (length bytes)
    stream = frame*            (no header, no end mark: the end is the end of the body)

A list of digests is 32 bytes each; a list of chunks 36 bytes each (digest, length). The reader
holds at most one frame; a length above the limit is refused before a byte of it is kept.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from sekisho.domain.errors import IntegrityError, TooLarge, UsageError
from sekisho.domain.limits import DIGEST_BYTES, MAX_CHUNK_BYTES, MAX_DIGESTS

_HEAD: Final = struct.Struct(">32sI")


@dataclass(frozen=True, slots=True, order=True)
class Chunk:
    """A piece of content: ``digest`` is the SHA-256 of its ``size`` bytes, in hexadecimal."""

    digest: str
    size: int


def digest_of(data: bytes | bytearray | memoryview) -> str:
    """Return the digest that names ``data``."""
    return hashlib.sha256(data).hexdigest()


def frame(digest: str, data: bytes) -> bytes:
    """Return one frame."""
    return _HEAD.pack(bytes.fromhex(digest), len(data)) + data


def frames(chunks: Iterable[tuple[str, bytes]]) -> Iterator[bytes]:
    """Return the frames of ``chunks`` (digest, bytes)."""
    return (frame(digest, data) for digest, data in chunks)


class FrameReader:
    """Cuts a stream back into verified chunks. Feed it what arrives; call `end` after the last."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[Chunk, bytes]]:
        """Return the chunks that ``data`` completes; raise IntegrityError on a wrong digest."""
        self._buffer += data
        done: list[tuple[Chunk, bytes]] = []
        start = 0
        while len(self._buffer) - start >= _HEAD.size:
            digest, length = _HEAD.unpack_from(self._buffer, start)
            if length > MAX_CHUNK_BYTES:
                raise TooLarge("chunk.too_large", limit=MAX_CHUNK_BYTES)
            end = start + _HEAD.size + length
            if len(self._buffer) < end:
                break
            done.append(_verified(digest.hex(), bytes(self._buffer[start + _HEAD.size : end])))
            start = end
        del self._buffer[:start]
        return done

    def end(self) -> None:
        """Raise IntegrityError when the stream stopped within a frame."""
        if self._buffer:
            raise IntegrityError("chunk.truncated")


def _verified(digest: str, data: bytes) -> tuple[Chunk, bytes]:
    if digest_of(data) != digest:
        raise IntegrityError("chunk.digest")
    return Chunk(digest, len(data)), data


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
