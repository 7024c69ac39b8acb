"""Blobs as files: ``root/<hash of the space>/<first two digits>/<digest>``.

A space's name never becomes a path; it stands in the file ``space`` of its directory. A file
appears whole or not at all (`adapters.durable`), is verified when written and whenever read, and
its modification time is the time of storing. What is damaged counts as missing once that was seen.
Unfinished files of a crash, and damage that was set aside, are dropped by `older`.
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
from sekisho.domain.errors import Corrupt, IntegrityError, NotFound
from sekisho.wire.frames import digest_of

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

    def put(self, space: str, blobs: Sequence[tuple[str, bytes]]) -> None:
        if any(digest_of(data) != digest for digest, data in blobs):
            raise IntegrityError("chunk.digest")
        files = {self._path(space, digest): data for digest, data in blobs}
        with _os_errors():
            self._prepare(space, {path.parent for path in files})
            there = {path for path, data in files.items() if _content(path) == data}
            durable.write_files([(p, data) for p, data in files.items() if p not in there])
            # another thread that stores the same may not have come so far
            durable.sync_directories({path.parent for path in there})

    def read(self, space: str, digest: str) -> bytes:
        with _os_errors():
            data = _content(self._path(space, digest))
        if data is None:
            raise NotFound("chunk.not_found")
        if digest_of(data) != digest:
            with _os_errors():
                self._set_aside(self._path(space, digest))
            raise IntegrityError("chunk.damaged", digest=digest)
        return data

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
            if digest_of(aside.read_bytes()) == path.name:
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
