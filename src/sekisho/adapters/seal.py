"""Seals: copies that are what they were when they were hashed, told without reading them again.

A copy is made under a lease that anybody else breaks who opens it. What it shows at the end of
that (which file it is, its size and times) is its seal. Later nobody has written to it if it still
shows the same, under a lease that is not to be had while somebody writes: a write, by a mapping
too, begins with opening the file for it, and leaves another time of change, which cannot be set.
Where no lease is to be had, or to be trusted, or after an hour, there is no seal: then whoever
wants to know hashes.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

import msgspec

from sekisho.adapters.lease import lease, lease_alone, leased_alone
from sekisho.transfer.mount import kind_of
from sekisho.transfer.remembered import Look
from sekisho.wire.frames import digest_of

#: Where every write shows in the time of change: in memory (tmpfs) one through a mapping does not.
_TELLING: Final = frozenset({"ext4", "xfs", "btrfs", "f2fs"})
#: So many copies are held open: each waits until the file system tells a later change apart.
_MOST_HELD: Final = 64
_TRUSTED_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Seals:
    """The seals of copies, by name."""

    looks: Mapping[str, Look]

    @classmethod
    def read(cls, text: bytes) -> Self:
        """Return what `text` was made of; without an understandable one, no seals."""
        try:
            return cls(msgspec.json.decode(text, type=dict[str, Look]))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return cls({})

    @property
    def text(self) -> bytes:
        return msgspec.json.encode(self.looks, order="sorted")

    @property
    def digest(self) -> str | None:
        """What names them all; None: there are none."""
        return digest_of(self.text) if self.looks else None

    def hold(self, name: str, fd: int) -> bool:
        """Say whether what is open for reading at ``fd`` is ``name`` as it was sealed.

        What is read of it from now on is sound if the lease on ``fd`` is held afterwards.
        """
        look = self.looks.get(name)
        if look is None or not 0 <= look.age_s <= _TRUSTED_SECONDS:
            return False
        return lease(fd) and Look.at(fd) == look


@dataclass(slots=True)
class Sealing:
    """Seals in the making, of copies in the open directory ``staging``."""

    staging: int
    settle_s: float
    _trusted: bool | None = None
    _held: deque[tuple[str, int]] = field(default_factory=deque)
    _looks: dict[str, Look] = field(default_factory=dict)

    def watch(self, name: str, fd: int) -> None:
        """See from now on whether anybody else opens the new, empty file at ``fd``."""
        if self._trusted is None:
            self._trusted = kind_of(self.staging) in _TELLING
        if self._trusted and lease_alone(fd):
            self._held.append((name, os.dup(fd)))

    def settle(self, most: int = _MOST_HELD) -> None:
        """Seal the copies that are made, but the last ``most``. Nothing holds them back then."""
        while len(self._held) > most:
            name, fd = self._held.popleft()
            try:
                look = Look.at(fd)
                if 0 < (left := self.settle_s - look.age_s) <= self.settle_s:
                    time.sleep(left)
                if leased_alone(fd) and Look.at(fd) == look:
                    self._looks[name] = look
            finally:
                os.close(fd)

    def drop(self) -> None:
        """Let go of everything, as after an error."""
        while self._held:
            os.close(self._held.popleft()[1])

    def seals(self) -> Seals:
        """Return all seals. From here on the copies may be opened."""
        self.settle(0)
        return Seals(self._looks)
