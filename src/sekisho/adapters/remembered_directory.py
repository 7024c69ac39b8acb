"""Remembered chunks in a directory of the user's cache: a fixed number of files, without locks.

A file's place follows from its device and inode; another file in the same place takes it over.
Each is replaced as a whole and carries its own digest, so that processes and crashes, on whatever
file system, can only make it be forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final

import msgspec

from sekisho.transfer.remembered import Look
from sekisho.wire.frames import Chunk, digest_of

_PLACES: Final = 4096
_VERSION: Final = 2


def cache_directory(environ: Mapping[str, str]) -> Path:
    """Return where the user's programs keep what they can do without."""
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "sekisho")


class RememberedDirectory:
    """Implements `transfer.remembered.Remembered` below ``root``, which need not exist."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def recall(self, look: Look) -> Sequence[Chunk] | None:
        try:
            data = self._place(look).read_bytes()
        except OSError:
            return None
        digest, _, kept = data.partition(b"\n")
        key, _, packed = kept.partition(b"\n")
        if digest != digest_of(kept).encode() or key != _key(look):
            return None
        pairs = msgspec.msgpack.decode(packed, type=list[tuple[bytes, int]])
        return [Chunk(digest.hex(), size) for digest, size in pairs]

    def keep(self, look: Look, chunks: Sequence[Chunk]) -> None:
        pairs = [(bytes.fromhex(chunk.digest), chunk.size) for chunk in chunks]
        kept = _key(look) + b"\n" + msgspec.msgpack.encode(pairs)
        with suppress(OSError):
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with NamedTemporaryFile(dir=self._root, prefix=".new-", delete=False) as file:
                try:
                    file.write(digest_of(kept).encode() + b"\n" + kept)
                    file.flush()
                    Path(file.name).replace(self._place(look))
                except OSError:
                    Path(file.name).unlink()

    def forget(self, look: Look) -> None:
        with suppress(OSError):
            self._place(look).unlink()

    def _place(self, look: Look) -> Path:
        number = int(digest_of(f"{look.device}/{look.inode}".encode())[:12], 16) % _PLACES
        return self._root / f"{number:03x}"


def _key(look: Look) -> bytes:
    return msgspec.json.encode((_VERSION, *astuple(look)))
