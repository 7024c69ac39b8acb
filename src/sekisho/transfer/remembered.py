"""What is remembered of files, so that an unchanged one is not read again to know its chunks."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from sekisho.wire.frames import Chunk

#: A smaller file is read as fast as it is looked up.
WORTH_BYTES: Final = 256 << 10
#: A change within the resolution of a file's times cannot be seen in them.
_SETTLED_NS: Final = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Look:
    """A file as its metadata shows it. Whoever changes its content changes its ``ctime``."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, seen: os.stat_result) -> Look:
        return cls(seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)

    @classmethod
    def at(cls, fd: int) -> Look:
        return cls.of(os.fstat(fd))

    @property
    def age_s(self) -> float:
        """For how long it has shown this; negative by a clock that was put back."""
        return (time.time_ns() - self.ctime_ns) / 1e9

    def settled(self, now_ns: int) -> bool:
        """Say whether a change after ``now_ns`` is certain to show."""
        return max(self.mtime_ns, self.ctime_ns) + _SETTLED_NS < now_ns


class Remembered(Protocol):
    """The chunks of files by how they look. May forget at any time, never raises."""

    def recall(self, look: Look) -> Sequence[Chunk] | None:
        """Return the chunks that were kept for exactly this look."""
        ...

    def keep(self, look: Look, chunks: Sequence[Chunk]) -> None:
        """Remember the chunks of a file that was settled before they were taken."""
        ...

    def forget(self, look: Look) -> None:
        """Remember nothing of this file: it turned out to be another one."""
        ...


class Forgetful:
    """Remembers nothing."""

    def recall(self, _look: Look) -> None:
        return None

    def keep(self, _look: Look, _chunks: Sequence[Chunk]) -> None:
        pass

    def forget(self, _look: Look) -> None:
        pass
