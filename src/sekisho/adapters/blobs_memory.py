"""Blobs in a dictionary: for tests, and for a broker that may forget."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from sekisho.domain.errors import IntegrityError, NotFound, StorageFull
from sekisho.wire.frames import digest_of


def _wall_clock() -> datetime:
    return datetime.now(UTC)


class MemoryBlobs:
    """Implements `broker.ports.BlobStore` up to ``capacity`` bytes."""

    def __init__(
        self, *, capacity: int = 1 << 30, now: Callable[[], datetime] = _wall_clock
    ) -> None:
        self._lock = threading.Lock()
        self._blobs: dict[tuple[str, str], tuple[bytes, datetime]] = {}
        self._free = capacity
        self._now = now

    def missing(self, space: str, digests: Sequence[str]) -> list[str]:
        with self._lock:
            return [digest for digest in digests if (space, digest) not in self._blobs]

    def put(self, space: str, blobs: Sequence[tuple[str, bytes]]) -> None:
        if any(digest_of(data) != digest for digest, data in blobs):
            raise IntegrityError("chunk.digest")
        with self._lock:
            for digest, data in blobs:
                self._keep(space, digest, data)

    def read(self, space: str, digest: str) -> bytes:
        with self._lock:
            blob = self._blobs.get((space, digest))
        if blob is None:
            raise NotFound("chunk.not_found")
        return blob[0]

    def delete(self, space: str, digests: Sequence[str]) -> None:
        with self._lock:
            for digest in digests:
                data, _ = self._blobs.pop((space, digest), (b"", None))
                self._free += len(data)

    def older(self, before: datetime) -> Iterator[tuple[str, str]]:
        with self._lock:
            blobs = list(self._blobs.items())
        return (key for key, (_, stored_at) in blobs if stored_at < before)

    def free_bytes(self) -> int:
        with self._lock:
            return self._free

    def _keep(self, space: str, digest: str, data: bytes) -> None:
        if (space, digest) in self._blobs:
            return
        if len(data) > self._free:
            raise StorageFull
        self._blobs[space, digest] = (data, self._now())
        self._free -= len(data)
