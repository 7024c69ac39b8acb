"""What a transfer needs of the other side: a place for the chunks or the files of one job."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from sekisho.domain.files import RelPath
from sekisho.transfer.progress import Progress
from sekisho.transfer.source import Source
from sekisho.wire.frames import Chunk


class ChunkSource(Protocol):
    """Where chunks of one job come from. May be repeated after any error."""

    def fetch(self, chunks: Sequence[Chunk]) -> Iterator[tuple[Chunk, bytes]]:
        """Return the chunks in any order, verified; a chunk of another job is NotFound."""
        ...


class ChunkPort(ChunkSource, Protocol):
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


@runtime_checkable
class FileSource(ChunkSource, Protocol):
    """A source whose files lie on this machine, for whoever takes them to have."""

    def give(self, path: RelPath, folder: int, name: str) -> bool:
        """Move a file to ``name`` in the open ``folder`` if that costs nothing; say if it is there.

        Whoever takes it has to look at what it holds. What was given can be fetched nevertheless.
        """
        ...


@runtime_checkable
class FilePort(ChunkSource, Protocol):
    """A place that takes whole files, by a program made for that. Errors as those of ChunkPort."""

    def send_files(self, sources: Sequence[Source], progress: Progress) -> None:
        """Bring the files under their names. May be repeated: what arrived is not sent again."""
        ...
