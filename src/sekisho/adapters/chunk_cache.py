"""Input chunks that a site keeps for the next job: bounded, and apart for each submitter.

Rule 1: what is kept is verified whenever it is used; what is damaged, torn or gone is fetched anew.
        So nothing here needs a sync, and no trouble with the cache's disk is trouble for a job.
Rule 2: a chunk that several jobs want at the same time comes over the line once.
Rule 3: one process at a time. The least recently used chunk goes first, also after a restart.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from sekisho.adapters.durable import TEMPORARY
from sekisho.domain.errors import IntegrityError
from sekisho.domain.limits import MIB
from sekisho.transfer.pipeline import mapped
from sekisho.transfer.port import ChunkSource
from sekisho.wire.frames import Chunk, Sound, digest_of

#: The cache never takes the last of the disk: jobs need it more.
_SPARE_BYTES: Final = 1024 * MIB
Key = tuple[str, str]  #: a submitter's folder, a digest

log = structlog.get_logger()


class ChunkCache:
    """At most ``max_bytes`` of chunks below ``root``, which is made when it is not there."""

    def __init__(self, root: Path, max_bytes: int, *, spare_bytes: int = _SPARE_BYTES) -> None:
        self._root = root
        self._max_bytes = max_bytes
        self._spare_bytes = spare_bytes
        self._change = threading.Condition()
        self._held: OrderedDict[Key, int] | None = None  #: sizes, least recently used first
        self._bytes = 0
        self._left = 0
        self._coming: set[Key] = set()

    def over(self, source: ChunkSource, submitter: str) -> ChunkSource:
        """Return ``source`` seen through what is kept for ``submitter``; for "" nothing is."""
        return CachedChunks(self, source, digest_of(submitter.encode())) if submitter else source

    def leave(self, number: int) -> None:
        """Leave ``number`` of the bytes to what else is kept of inputs."""
        with self._change:
            self._left = number
            if self._held is not None:
                self._shrink()

    def read(self, key: Key) -> bytes | None:
        """Return the verified bytes, or None when they are not here; they are the newest now."""
        with self._change:
            held = self._listed()
            if key not in held:
                return None
            held.move_to_end(key)
        path = self._path(key)
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            data = b""
        if digest_of(data) == key[1]:
            return data
        with self._change:
            self._drop(key)
        log.warning("cached_chunk_dropped", digest=key[1])
        return None

    def claim(self, keys: Iterable[Key]) -> set[Key]:
        """Return those of ``keys`` that are neither here nor coming: the caller's to fetch."""
        with self._change:
            held = self._listed()
            mine = {key for key in keys if key not in held and key not in self._coming}
            self._coming |= mine
        return mine

    def put(self, key: Key, data: bytes) -> None:
        """Keep verified bytes if there is room; in any case their fetching is over."""
        with suppress(OSError):
            self._write(key, data)
        self.release([key])

    def release(self, keys: Iterable[Key]) -> None:
        """Let others fetch ``keys``, or read them."""
        with self._change:
            self._coming.difference_update(keys)
            self._change.notify_all()

    def wait(self, key: Key) -> None:
        """Return when nobody is fetching ``key``."""
        with self._change:
            self._change.wait_for(lambda: key not in self._coming)

    def _write(self, key: Key, data: bytes) -> None:
        with self._change:
            self._listed()
            room = os.statvfs(self._root)
            spare = room.f_bavail * room.f_frsize - self._spare_bytes
            if len(data) > min(self._max_bytes - self._left, spare):
                return
        path = self._path(key)
        for folder in (path.parent.parent, path.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
        try:
            temporary.touch(mode=0o600)
            temporary.write_bytes(data)
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        with self._change:
            held = self._listed()
            self._bytes += len(data) - held.pop(key, 0)
            held[key] = len(data)
            self._shrink()

    def _drop(self, key: Key) -> None:
        self._bytes -= self._listed().pop(key, 0)
        with suppress(OSError):
            self._path(key).unlink()

    def _shrink(self) -> None:
        while self._held and self._bytes > self._max_bytes - self._left:
            self._drop(next(iter(self._listed())))

    def _listed(self) -> OrderedDict[Key, int]:
        """Return what is held; looked up on disk once, when it is first asked for."""
        if self._held is None:
            self._held = OrderedDict()
            with suppress(OSError):
                self._root.mkdir(mode=0o700, exist_ok=True)
                found = sorted(_found(self._root))
                self._held.update((key, size) for _, key, size in found)
            self._bytes = sum(self._held.values())
            self._shrink()
        return self._held

    def _path(self, key: Key) -> Path:
        folder, digest = key
        return self._root / folder / digest[:2] / digest


@dataclass(frozen=True, slots=True)
class CachedChunks:
    """A ChunkSource: what is kept, then what only the line has, then what came for others."""

    _cache: ChunkCache
    _source: ChunkSource
    _folder: str

    def fetch(self, chunks: Sequence[Chunk]) -> Iterator[Sound]:
        owed = {(self._folder, chunk.digest): chunk for chunk in chunks}
        while owed:
            mine = self._cache.claim(owed)
            try:
                yield from self._kept(owed, mine)
                yield from self._fetched(owed, mine)
            finally:
                self._cache.release(mine)
            if owed:  # all of it is on its way to others; their last is likely to be our last
                self._cache.wait(next(reversed(owed)))

    def _kept(self, owed: dict[Key, Chunk], absent: set[Key]) -> Iterator[Sound]:
        """Give what is kept, read and verified beside whoever takes it."""
        here = [(key, chunk) for key, chunk in owed.items() if key not in absent]
        found = mapped(self._cache.read, [key for key, _ in here]) if here else ()
        for (key, chunk), data in zip(here, found, strict=True):
            if data is None:
                continue
            if len(data) != chunk.size:  # the list lies: nobody has what it names
                raise IntegrityError("chunk.size", digest=chunk.digest)
            del owed[key]
            yield Sound((chunk, data))

    def _fetched(self, owed: dict[Key, Chunk], mine: set[Key]) -> Iterator[Sound]:
        wanted = [chunk for key, chunk in owed.items() if key in mine]
        if not wanted:
            return
        for sound in self._source.fetch(wanted):
            chunk, data = sound
            key = (self._folder, chunk.digest)
            self._cache.put(key, data)
            owed.pop(key, None)
            yield sound


def _found(root: Path) -> Iterator[tuple[int, Key, int]]:
    """Return (time of last use, key, size) of every chunk; remove what a crash left by half."""
    for path in root.glob("*/*/*"):
        if path.name.startswith(TEMPORARY):
            path.unlink(missing_ok=True)
            continue
        with suppress(FileNotFoundError):
            seen = path.stat(follow_symlinks=False)
            yield seen.st_mtime_ns, (path.parts[-3], path.name), seen.st_size
