"""What a transfer needs of the other side: a place for the chunks or the files of one job."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import Protocol, runtime_checkable

from sekisho.domain.files import RelPath
from sekisho.transfer.progress import Progress
from sekisho.transfer.source import Source
from sekisho.wire.frames import Chunk, Sound


class ChunkSource(Protocol):
    """Where chunks of one job come from. May be repeated after any error."""

    def fetch(self, chunks: Sequence[Chunk]) -> Iterator[Sound]:
        """Return the chunks in any order, verified: nobody looks again before they are used.

        A chunk of another job is NotFound, one that is not what its digest says IntegrityError.
        """
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
        """Store declared chunks, each verified there. What was stored before an error stays."""
        ...


class Given(Enum):
    """What came of asking for a file as a whole."""

    NOTHING = "nothing"
    UNSEEN = "unseen"  #: it is there; what it holds is to be looked at
    SOUND = "sound"  #: it is there, and was verified since anybody else could change it


@runtime_checkable
class FileSource(ChunkSource, Protocol):
    """A source whose files lie on this machine, for whoever takes them to have."""

    def give(self, path: RelPath, folder: int, name: str) -> Given:
        """Put a file in the place of ``name`` in the open ``folder``, where that costs little.

        What was given can be fetched nevertheless.
        """
        ...


@runtime_checkable
class FilePort(ChunkSource, Protocol):
    """A place that takes whole files, by a program made for that. Errors as those of ChunkPort."""

    def send_files(self, sources: Sequence[Source], progress: Progress) -> None:
        """Bring the files under their names. May be repeated: what arrived is not sent again."""
        ...
