"""What a running job shows of itself, in the submitter's hands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

from sekisho.client.spec import PathLike
from sekisho.domain.errors import UsageError
from sekisho.domain.files import RelPath
from sekisho.transfer.fetch import fetch_files
from sekisho.transfer.place import check_into
from sekisho.transfer.tree import Tree, TreeFile
from sekisho.wire.envelope import open_snapshot
from sekisho.wire.frames import Chunk, Sound, digest_of, verified
from sekisho.wire.v1 import SnapshotView


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A job as it was ``at`` some moment: whole percents of progress, small files by their name.

    ``number`` counts what the job has published; ``receipt`` is the digest of the record that the
    site's log has of this release.
    """

    job: str
    number: int
    at: datetime
    progress: int | None = None
    files: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    receipt: str | None = None

    def write(self, into: PathLike) -> tuple[Path, ...]:
        """Put the files into the directory ``into``, each as a whole; return where they are."""
        held = {digest_of(data): data for data in self.files.values()}
        named = sorted((RelPath.parse(name), data) for name, data in self.files.items())
        tree = Tree(tuple(_file(path, data) for path, data in named))
        if tree.files:
            check_into(Path(into))
            fetch_files(tree, _Held(held), Path(into))
        return tuple(Path(into, *path.parts) for path, _ in named)


@dataclass(frozen=True, slots=True)
class _Held:
    """A source of chunks that are all here."""

    contents: Mapping[str, bytes]

    def fetch(self, chunks: Sequence[Chunk]) -> Iterator[Sound]:
        return (verified((chunk, self.contents[chunk.digest])) for chunk in chunks)


def _file(path: RelPath, data: bytes) -> TreeFile:
    chunks = (Chunk(digest_of(data), len(data)),) if data else ()
    return TreeFile(path, executable=False, size=len(data), chunks=chunks)


def snapshot_of(job: str, view: SnapshotView) -> Snapshot:
    """Return what ``view`` shows; raise UsageError for names that may not cross a boundary."""
    shown = open_snapshot(view.snapshot)
    files = {str(RelPath.parse(file.path)): file.content for file in shown.files}
    if len(files) != len(shown.files):
        raise UsageError("envelope.invalid", why="form")
    return Snapshot(
        job=job,
        number=view.number,
        at=shown.at,
        progress=shown.progress,
        files=MappingProxyType(files),
        receipt=shown.receipt,
    )
