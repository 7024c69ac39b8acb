"""What a transfer needs of the other side: a place for the chunks of one job in one direction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from sekisho.wire.frames import Chunk


class ChunkPort(Protocol):
    """Chunks of one job, at the other side. Synchronous: transfers run in worker threads.

    Every method may be repeated after any error and is then answered the same. Errors: Unavailable
    (and its kinds, retried by the adapter for as long as the work is owed), IntegrityError,
    StaleEpoch, NotFound.
    """

    def missing(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Declare that the job needs ``chunks`` (pinned from now on); return those not there."""
        ...

    def send(self, chunks: Iterable[tuple[Chunk, bytes]]) -> None:
        """Store declared chunks. What was stored before an error stays stored."""
        ...

    def fetch(self, chunks: Sequence[Chunk]) -> Iterator[tuple[Chunk, bytes]]:
        """Return the chunks in any order, verified; a chunk of another job is NotFound."""
        ...
