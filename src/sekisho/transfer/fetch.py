"""Fetching a tree into a directory: look at what is there, fetch what is not, look again.

Rule 1: contents go into a folder of our own beside the result, under numbers; a name of the other
        party is used only at the end, component by component, never through a symbolic link.
Rule 2: only verified bytes are written; what is to last is synced before its names appear.
Rule 3: an interrupted fetch is called again and continues where it was, chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sekisho.domain.errors import IntegrityError, StorageFull, TooLarge
from sekisho.domain.limits import MAX_DIGESTS, MAX_FILES, MAX_TREE_BYTES, MIB
from sekisho.transfer.earlier import Begun
from sekisho.transfer.part import Part, nothing
from sekisho.transfer.port import ChunkSource, FileSource
from sekisho.transfer.progress import Gauge, Progress, unseen
from sekisho.transfer.send import batched
from sekisho.transfer.tree import Tree, check_length, read_pieces
from sekisho.wire.envelope import TreeRef
from sekisho.wire.frames import Chunk

#: So many pieces of a list are in memory at a time, each up to a chunk long.
_LISTED: Final = 16
#: Room that is left to others on the disk.
_SPARE_BYTES: Final = 16 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """What a tree may be at most, checked before anything of it is written."""

    max_files: int = MAX_FILES
    max_bytes: int = MAX_TREE_BYTES


UNCAPPED: Final = Caps()


def fetch_index(ref: TreeRef, port: ChunkSource, caps: Caps = UNCAPPED) -> Tree:
    """Return the tree that ``ref`` names, without its contents.

    Raise TooLarge above ``caps``, IntegrityError or UsageError for a list that is not what its
    name says or holds a name that may not cross a boundary.
    """
    if ref.files > caps.max_files:
        raise TooLarge("tree.too_many_files", limit=caps.max_files)
    if ref.size > caps.max_bytes:
        raise TooLarge("tree.too_large", limit=caps.max_bytes)
    check_length(ref)
    return read_pieces(_pieces(ref, port), ref)


def _pieces(ref: TreeRef, port: ChunkSource) -> Iterator[bytes]:
    for batch in batched((Chunk(c.digest, c.size) for c in ref.index), _LISTED):
        held = dict(port.fetch(list(dict.fromkeys(batch))))
        if not held.keys() >= set(batch):
            raise IntegrityError("chunk.missing")
        yield from (held[chunk] for chunk in batch)


def fetch_files(
    tree: Tree,
    port: ChunkSource,
    directory: Path,
    progress: Progress = unseen,
    *,
    lasting: bool = True,
) -> None:
    """Make the files of ``tree`` appear in ``directory``, replacing those with their names.

    On success they are verified and, if they are to be ``lasting``, on disk; otherwise a power cut
    may take them away, or a part of each, and whoever needs them after one calls again.

    Raise StorageFull, Conflict(`fetch.blocked`) when a folder or a link is in the way of a name,
    Conflict(`fetch.busy`) while another process fetches the same tree to the same place.
    """
    give = port.give if isinstance(port, FileSource) else nothing
    with Part.beside(directory, tree, give) as part:
        if isinstance(port, Begun):
            part.believe(port.earlier)
        lacking = part.lacking()
        gauge = Gauge(tree.size, progress)
        gauge.add(tree.size - part.bytes_of(lacking))
        if lacking:
            _check_space(part, lacking)
            fill(part, lacking, port, gauge)
        if not part.whole:
            raise IntegrityError("chunk.missing")
        if lasting:
            part.settle()
        part.publish(lasting=lasting)


def fetch_tree(
    ref: TreeRef,
    port: ChunkSource,
    directory: Path,
    progress: Progress = unseen,
    caps: Caps = UNCAPPED,
) -> Tree:
    """Fetch the list and the files that ``ref`` names; see `fetch_index` and `fetch_files`."""
    tree = fetch_index(ref, port, caps)
    fetch_files(tree, port, directory, progress)
    return tree


def _check_space(part: Part, lacking: Sequence[Chunk]) -> None:
    needed, free = part.bytes_of(lacking) + _SPARE_BYTES, part.free_bytes()
    if needed > free:
        raise StorageFull("fetch.disk_full", needed=needed, free=free)


def fill(part: Part, lacking: Sequence[Chunk], port: ChunkSource, gauge: Gauge) -> None:
    """Write ``lacking`` as ``port`` gives them."""
    for batch in batched(lacking, MAX_DIGESTS):
        asked = set(batch)
        for chunk, data in port.fetch(batch):
            if chunk not in asked:
                raise IntegrityError("chunk.unexpected")
            asked.discard(chunk)
            gauge.add(part.write(chunk, data))
