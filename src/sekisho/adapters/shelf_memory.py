"""A shelf in a dictionary, for tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from sekisho.domain.errors import NotFound
from sekisho.site.push import Held
from sekisho.wire.frames import Frame


def _wall_clock() -> datetime:
    return datetime.now(UTC)


class MemoryShelf:
    """Implements `site.push.ChunkShelf` up to ``capacity`` bytes. A space is a pack."""

    def __init__(
        self, *, capacity: int = 1 << 30, now: Callable[[], datetime] = _wall_clock
    ) -> None:
        self._frames: dict[tuple[str, str], tuple[Frame, datetime]] = {}
        self._free = capacity
        self._now = now

    def find(self, space: str, digests: Iterable[str]) -> dict[str, Held]:
        asked = {digest: self._frames.get((space, digest)) for digest in digests}
        return {
            digest: Held(digest, space, 0, len(there[0].payload), there[0].packed)
            for digest, there in asked.items()
            if there is not None
        }

    def put(self, space: str, frames: Iterable[Frame]) -> None:
        for frame in frames:
            frame.opened()
            self._free -= len(frame.payload)
            self._frames[space, frame.digest] = frame, self._now()

    def read(self, held: Held) -> Frame:
        there = self._frames.get((held.pack, held.digest))
        if there is None:
            raise NotFound("chunk.not_found")
        return there[0]

    def copy(self, helds: Sequence[Held], fd: int, offset: int) -> bool:
        for held in helds:
            _, data = self.read(held).opened()
            os.pwrite(fd, data, offset)
            offset += len(data)
        return True

    def drop(self, space: str, before: datetime, wanted: Iterable[str] = ()) -> None:
        old = {key for key, there in self._frames.items() if key[0] == space and there[1] < before}
        for key in old - {(space, digest) for digest in (wanted if old else ())}:
            frame, _ = self._frames.pop(key)
            self._free += len(frame.payload)

    def free_bytes(self) -> int:
        return self._free
