"""Blobs as files: ``root/<hash of the space>/<first two digits>/<digest>``, packed as they came.

A space's name never becomes a path; it stands in the file ``space`` of its directory. A file
appears whole or not at all (`adapters.durable`), is verified when written and when it is read, not
when it is taken, and its modification time is the time of storing. Damage counts as missing once it
was seen. Unfinished files of a crash, and damage that was set aside, are dropped by `older`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final

import structlog

from sekisho.adapters import durable
from sekisho.domain.errors import Corrupt, IntegrityError, NotFound, TooLarge
from sekisho.wire.frames import FRAME_HEAD_BYTES, PACKED_MAGIC, Chunk, Frame, digest_of

_SPACE_FILE: Final = "space"
_DIGEST_LENGTH: Final = 64

log = structlog.get_logger()


class BlobDirectory:
    """Implements `broker.ports.BlobStore` below ``root``, which must exist."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._spaces: set[str] = set()  # known to have their directory and name on disk
        self._shards: set[Path] = set()

    def missing(self, space: str, digests: Sequence[str]) -> list[str]:
        with _os_errors():
            return [digest for digest in digests if not _stored(self._path(space, digest))]

    def put(self, space: str, frames: Sequence[Frame]) -> None:
        files = {self._path(space, frame.digest): frame.payload for frame in frames}
        for frame in frames:
            frame.opened()
        with _os_errors():
            self._prepare(space, {path.parent for path in files})
            there = {path for path, data in files.items() if _content(path) == data}
            durable.write_files([(p, data) for p, data in files.items() if p not in there])
            # another thread that stores the same may not have come so far
            durable.sync_directories({path.parent for path in there})

    def size(self, space: str, digests: Sequence[str]) -> int:
        with _os_errors():
            try:
                sizes = [self._path(space, digest).stat().st_size for digest in digests]
            except FileNotFoundError as error:
                raise NotFound("chunk.not_found") from error
        return sum(sizes) + FRAME_HEAD_BYTES * len(sizes)

    def take(self, space: str, chunk: Chunk) -> Frame:
        with _os_errors():
            data = _content(self._path(space, chunk.digest))
        if data is None:
            raise NotFound("chunk.not_found")
        if len(data) == chunk.size and data.startswith(PACKED_MAGIC):
            return _sound(chunk.digest, data) or Frame(chunk.digest, data)  # only a look can tell
        return Frame(chunk.digest, data, packed=len(data) != chunk.size)

    def read(self, space: str, digest: str) -> Frame:
        path = self._path(space, digest)
        with _os_errors():
            data = _content(path)
            if data is None:
                raise NotFound("chunk.not_found")
            frame = _sound(digest, data)
            if frame is None:
                self._set_aside(path)
                raise IntegrityError("chunk.damaged", digest=digest)
        return frame

    def delete(self, space: str, digests: Sequence[str]) -> None:
        with _os_errors():
            for digest in digests:
                self._path(space, digest).unlink(missing_ok=True)

    def older(self, before: datetime) -> Iterator[tuple[str, str]]:
        limit = before.timestamp()
        with _os_errors():
            for directory in _directories(self._root):
                space = _space_in(directory)
                for shard in _directories(directory):
                    for digest in _old_files(shard, limit):
                        yield _named(space), digest

    def free_bytes(self) -> int:
        with _os_errors():
            system = os.statvfs(self._root)
        return system.f_bavail * system.f_frsize

    def _path(self, space: str, digest: str) -> Path:
        if len(digest) != _DIGEST_LENGTH or not digest.isalnum():
            raise IntegrityError("chunk.digest")
        return self._root / digest_of(space.encode()) / digest[:2] / digest

    def _set_aside(self, path: Path) -> None:
        """Take damage out of the way, so that whoever has the bytes is asked for them again.

        Somebody may have stored them rightly since we read: then they get their place back.
        """
        aside = path.with_name(f"{durable.TEMPORARY}{path.name}")
        with suppress(FileNotFoundError):
            path.replace(aside)
            log.error("chunk_damaged", digest=path.name)
            if _sound(path.name, aside.read_bytes()):
                aside.replace(path)
            durable.sync_directory(path.parent)

    def _prepare(self, space: str, shards: set[Path]) -> None:
        if space not in self._spaces:
            place = self._root / digest_of(space.encode())
            durable.make_directory(place)
            durable.write_file(place / _SPACE_FILE, space.encode())
            self._spaces.add(space)
        if new := shards - self._shards:
            durable.make_directories(sorted(new))
            self._shards |= new


@contextmanager
def _os_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise durable.translated(error) from error


def _sound(digest: str, content: bytes) -> Frame | None:
    """Return the frame that a file is: its digest tells whether it is packed. None for damage."""
    for packed in (False, True):
        frame = Frame(digest, content, packed=packed)
        with suppress(IntegrityError, TooLarge):
            frame.opened()
            return frame
    return None


def _stored(path: Path) -> bool:
    """Say whether the file is there. Unlike `Path.exists`, any other trouble is an error."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    return True


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _directories(path: Path) -> list[Path]:
    with os.scandir(path) as entries:
        return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]


def _old_files(shard: Path, limit: float) -> Iterator[str]:
    with os.scandir(shard) as entries:
        old = [entry for entry in entries if _stored_at(entry) < limit]
    for entry in old:
        if entry.name.startswith(durable.TEMPORARY):
            Path(entry.path).unlink(missing_ok=True)
        else:
            yield entry.name


def _stored_at(entry: os.DirEntry[str]) -> float:
    try:
        return entry.stat(follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return math.inf  # finished, or deleted, since it was listed


def _space_in(directory: Path) -> str | None:
    content = _content(directory / _SPACE_FILE)
    return None if content is None else content.decode()


def _named(space: str | None) -> str:
    """Return the name. A crash can leave a directory without one, but only an empty directory."""
    if space is None:
        raise Corrupt("storage.space_unknown")
    return space
