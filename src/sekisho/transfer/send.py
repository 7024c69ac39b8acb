"""Sending a tree: ask what is missing, send that, and nothing twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from sekisho.domain.errors import IntegrityError
from sekisho.domain.limits import MAX_DIGESTS
from sekisho.transfer.ahead import Ahead
from sekisho.transfer.pipeline import mapped
from sekisho.transfer.port import ChunkPort, FilePort
from sekisho.transfer.progress import Gauge, Progress, unseen
from sekisho.transfer.source import LocalTree
from sekisho.transfer.tree import Tree
from sekisho.wire.envelope import TreeRef
from sekisho.wire.frames import Chunk

T = TypeVar("T")


def send_local(
    local: LocalTree,
    port: ChunkPort | FilePort,
    progress: Progress = unseen,
    ahead: Ahead | None = None,
) -> None:
    """Bring the files of ``local`` to ``port``, in the way that it takes them."""
    if isinstance(port, FilePort):
        port.send_files(local.sources, progress)
    else:
        try:
            send_tree(local.tree, local.content, port, progress, ahead)
        except IntegrityError:
            local.check()  # of what changed meanwhile the other side knows nothing
            raise


def send_tree(
    tree: Tree,
    read: Callable[[Chunk], bytes],
    port: ChunkPort,
    progress: Progress = unseen,
    ahead: Ahead | None = None,
) -> TreeRef:
    """Bring every chunk of ``tree`` and of its list to ``port``; return what names the tree.

    ``read`` returns a chunk's content. The list goes first: with it the other side can
    begin. What is ``ahead`` is on its way to the same port, and is waited for. May be repeated
    after any error: what arrived is not sent again.
    """
    index = dict(tree.index())
    wanted = [*dict.fromkeys([*index, *tree.chunks()])]

    def content(chunk: Chunk) -> bytes:
        return index[chunk] if chunk in index else read(chunk)

    gauge = Gauge(sum(c.size for c in wanted), progress)
    owed = _missing(wanted, port, gauge)
    if ahead is not None and ahead.chunks:
        _send([chunk for chunk in owed if chunk in index], content, port, gauge)
        gone = set(_counted_off(ahead, owed, gauge))
        owed = [chunk for chunk in owed if chunk not in index and chunk not in gone]
    _send(owed, content, port, gauge)
    return tree.ref()


def _missing(wanted: Iterable[Chunk], port: ChunkPort, gauge: Gauge) -> list[Chunk]:
    missing: list[Chunk] = []
    for batch in batched(wanted, MAX_DIGESTS):
        here = port.missing(batch)
        gauge.add(sum(c.size for c in batch) - sum(c.size for c in here))
        missing += here
    return missing


def _counted_off(ahead: Ahead, owed: Iterable[Chunk], gauge: Gauge) -> Iterator[Chunk]:
    """Give what has gone ahead, counted when it was still ``owed``; raise what went wrong."""
    counts = set(owed)
    for chunk in ahead.gone():
        if chunk in counts:
            gauge.add(chunk.size)
        yield chunk


def _send(
    chunks: Sequence[Chunk], content: Callable[[Chunk], bytes], port: ChunkPort, gauge: Gauge
) -> None:
    if chunks:
        port.send(_counted(chunks, content, gauge))


def _counted(
    chunks: Sequence[Chunk], content: Callable[[Chunk], bytes], gauge: Gauge
) -> Iterator[tuple[Chunk, bytes]]:
    for chunk, data in mapped(lambda chunk: (chunk, content(chunk)), chunks):
        yield chunk, data
        gauge.add(chunk.size)  # asked for the next one: this one is on its way


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Return ``items`` in lists of at most ``size``."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
