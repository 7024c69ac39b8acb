"""Blobs in a dictionary: for tests, and for a broker that may forget."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from sekisho.domain.errors import NotFound, StorageFull
from sekisho.wire.frames import Chunk, Frame


def _wall_clock() -> datetime:
    return datetime.now(UTC)


class MemoryBlobs:
    """Implements `broker.ports.BlobStore` up to ``capacity`` bytes."""

    def __init__(
        self, *, capacity: int = 1 << 30, now: Callable[[], datetime] = _wall_clock
    ) -> None:
        self._lock = threading.Lock()
        self._blobs: dict[tuple[str, str], tuple[Frame, datetime]] = {}
        self._free = capacity
        self._now = now

    def missing(self, space: str, digests: Sequence[str]) -> list[str]:
        with self._lock:
            return [digest for digest in digests if (space, digest) not in self._blobs]

    def put(self, space: str, frames: Sequence[Frame]) -> None:
        for frame in frames:
            frame.opened()
        with self._lock:
            for frame in frames:
                self._keep(space, frame)

    def size(self, space: str, digests: Sequence[str]) -> int:
        return sum(len(self.read(space, digest)) for digest in digests)

    def take(self, space: str, chunk: Chunk) -> Frame:
        return self.read(space, chunk.digest)

    def read(self, space: str, digest: str) -> Frame:
        with self._lock:
            blob = self._blobs.get((space, digest))
        if blob is None:
            raise NotFound("chunk.not_found")
        return blob[0]

    def delete(self, space: str, digests: Sequence[str]) -> None:
        with self._lock:
            for digest in digests:
                if blob := self._blobs.pop((space, digest), None):
                    self._free += len(blob[0].payload)

    def older(self, before: datetime) -> Iterator[tuple[str, str]]:
        with self._lock:
            blobs = list(self._blobs.items())
        return (key for key, (_, stored_at) in blobs if stored_at < before)

    def free_bytes(self) -> int:
        with self._lock:
            return self._free

    def _keep(self, space: str, frame: Frame) -> None:
        if (space, frame.digest) in self._blobs:
            return
        if len(frame.payload) > self._free:
            raise StorageFull
        self._blobs[space, frame.digest] = (frame, self._now())
        self._free -= len(frame.payload)
