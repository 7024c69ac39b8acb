"""ChunkPort over chunks that are on this machine already, and the files that they make up."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from sekisho.domain.errors import NotFound
from sekisho.domain.files import RelPath
from sekisho.domain.limits import MAX_DIGESTS
from sekisho.site.push import ChunkShelf, Held
from sekisho.transfer.pipeline import mapped
from sekisho.transfer.port import Given
from sekisho.transfer.send import batched
from sekisho.transfer.tree import Tree, TreeFile
from sekisho.wire.frames import Chunk, Frame, Sound

#: Room that is left to others on the disk.
_SPARE_BYTES: Final = 64 << 20
#: So many chunks are copied by one thread at a time.
_STRETCH: Final = 64
_WRITE: Final = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class LocalChunks:
    """The chunks of one ``space`` of a shelf."""

    def __init__(self, shelf: ChunkShelf, space: str) -> None:
        self._shelf = shelf
        self._space = space

    def missing(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        here = self._shelf.find(self._space, [c.digest for c in chunks])
        return [c for c in chunks if c.digest not in here]

    def send(self, chunks: Iterable[tuple[Chunk, bytes]]) -> None:
        self._shelf.put(self._space, (Frame(chunk.digest, data) for chunk, data in chunks))

    def fetch(self, chunks: Sequence[Chunk]) -> Iterator[Sound]:
        here = self._shelf.find(self._space, [c.digest for c in chunks])
        for chunk in chunks:
            if chunk.digest not in here:
                raise NotFound("chunk.not_found")
            yield Sound(self._shelf.read(here[chunk.digest]).unpacked())


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Chunks that lie one behind the other in a file: ``size`` bytes from ``offset`` on."""

    offset: int
    size: int
    helds: list[Held]


class LocalFiles(LocalChunks):
    """A `transfer.port.FileSource`: the files of one tree, put together from the shelf's chunks."""

    def __init__(self, shelf: ChunkShelf, space: str, tree: Tree) -> None:
        super().__init__(shelf, space)
        self._files = {file.path: number for number, file in enumerate(tree.files)}
        self._tree = tree
        self._here: dict[str, Held] = {}  #: of the file that was asked for last, and some after it

    def give(self, path: RelPath, folder: int, name: str) -> Given:
        """Write what is here into the file ``name``, which is there, as long as it should be.

        A file of a pack is not given: its pack is one read for all of them.
        """
        file = self._tree.files[self._files[path]]
        system = os.fstatvfs(folder)
        if file.shared or file.size + _SPARE_BYTES > system.f_bavail * system.f_frsize:
            return Given.NOTHING
        here = self._held(file)
        side_by_side = len(file.chunks) > _STRETCH
        fd = os.open(name, _WRITE, dir_fd=folder)

        def copy(stretch: _Stretch) -> bool:
            try:
                sound = self._shelf.copy(stretch.helds, fd, stretch.offset)
            except NotFound:  # dropped since: whoever verifies asks for it, and hears so
                return False
            if side_by_side:  # the disk begins with it: less is left to wait for at the end
                os.posix_fadvise(fd, stretch.offset, stretch.size, os.POSIX_FADV_DONTNEED)
            return sound

        try:
            stretches = _stretches(file, here)
            copied = mapped(copy, stretches, settle=True) if side_by_side else map(copy, stretches)
            sound = all(list(copied)) and all(c.hole or c.digest in here for c in file.chunks)
        finally:
            os.close(fd)
        return Given.SOUND if sound else Given.UNSEEN

    def _held(self, file: TreeFile) -> Mapping[str, Held]:
        """Return where the chunks of ``file`` are, as far as they are here."""
        if not all(chunk.hole or chunk.digest in self._here for chunk in file.chunks):
            wanted: dict[str, None] = {}
            for other in self._tree.files[self._files[file.path] :]:
                wanted.update((chunk.digest, None) for chunk in other.chunks if not chunk.hole)
                if len(wanted) >= MAX_DIGESTS:
                    break
            self._here = self._shelf.find(self._space, wanted)
        return self._here


def _stretches(file: TreeFile, here: Mapping[str, Held]) -> Iterator[_Stretch]:
    """Return what there is of ``file`` to copy, in pieces; holes are holes already."""
    places: list[tuple[int, int, Held | None]] = []
    offset = 0
    for chunk in file.chunks:
        places.append((offset, chunk.size, here.get(chunk.digest)))
        offset += chunk.size
    for there, run in groupby(places, key=lambda place: place[2] is not None):
        if there:
            for stretch in batched(run, _STRETCH):
                first, size = stretch[0][0], sum(size for _, size, _ in stretch)
                yield _Stretch(first, size, [held for _, _, held in stretch if held is not None])
