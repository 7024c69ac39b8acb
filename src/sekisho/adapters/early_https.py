"""Inputs fetched over HTTPS while their sender still sends: into a shelter, until the job is ours.

Rule 1: nothing is owed. Whatever goes wrong ends the fetch; staging then begins with what there is.
Rule 2: an input is written once: its part folder moves into the work directory as it is.
Rule 3: half of the free room at most is used, so that early inputs never stand in a job's way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Final, Protocol, TypeVar

import anyio
from anyio import to_thread

from sekisho.adapters.chunk_cache import ChunkCache
from sekisho.adapters.chunks_https import HttpsChunks
from sekisho.adapters.http_line import BYTES, HttpLine
from sekisho.adapters.http_problem import error_of
from sekisho.adapters.http_sender import AsyncSender, Call
from sekisho.domain.errors import Conflict, StorageFull
from sekisho.domain.ids import check_job_id
from sekisho.domain.limits import MIB, POLL_SECONDS
from sekisho.site.desk import together
from sekisho.transfer.earlier import NOTHING_EARLIER, Earlier, folder_of
from sekisho.transfer.fetch import fetch_index, fill
from sekisho.transfer.part import Part
from sekisho.transfer.port import ChunkSource
from sekisho.transfer.progress import Gauge, unseen
from sekisho.transfer.tree import Tree
from sekisho.wire.envelope import TreeRef
from sekisho.wire.frames import Chunk, Sound, pack_digests, unpack_digests
from sekisho.wire.v1 import Coming

T = TypeVar("T")
#: So many chunks are asked for at a time.
_ASKED: Final = 1024
#: Of a tree this part is fetched at a time, within bounds: the rest waits when its sender ends.
_PART: Final = 16
_LEAST_BYTES, _MOST_BYTES = 2 * MIB, 32 * MIB
#: After so many answers without any of it nobody seems to be sending.
_SILENT: Final = 12
_SLACK_SECONDS: Final = 15.0
_LEAST_FREE_BYTES: Final = 256 * MIB


class Shelter(Protocol):
    """Where early inputs lie, on the file system of the work directories."""

    def early(self, job: str) -> Path:
        """Return the folder for ``job``, made if need be."""
        ...

    def drop_early(self, job: str | None) -> None:
        """Remove that of ``job``, or of all."""
        ...

    def free_bytes(self) -> int:
        """Return how much room there is for jobs."""
        ...


class Way(Protocol):
    """How inputs of a job that no agent has are reached."""

    def source(self, coming: Coming) -> ChunkSource:
        """Return where chunks that are there come from."""
        ...

    async def arrived(self, coming: Coming, chunks: Sequence[Chunk], least: int) -> list[Chunk]:
        """Return those of ``chunks`` that are there, after waiting for ``least`` bytes of them."""
        ...


@dataclass(frozen=True, slots=True)
class EarlyWay:
    """How one agent reaches its broker, and what it keeps."""

    sender: AsyncSender
    line: HttpLine
    cache: ChunkCache | None

    def source(self, coming: Coming) -> ChunkSource:
        chunks = HttpsChunks(self.line, _base(coming), connections=1)
        return chunks if self.cache is None else self.cache.over(chunks, coming.submitter)

    async def arrived(self, coming: Coming, chunks: Sequence[Chunk], least: int) -> list[Chunk]:
        call = Call(
            method="POST",
            path=f"{_base(coming)}/arrived",
            body=pack_digests(chunk.digest for chunk in chunks),
            content_type=BYTES,
            query={"least": str(least), "wait_s": str(POLL_SECONDS)},
            read_s=POLL_SECONDS + _SLACK_SECONDS,
        )
        answer, body = await self.sender.answer(call)
        if not answer.good:
            raise error_of(answer.status, body, answer.header("retry-after"))
        here = set(unpack_digests(body))
        return [chunk for chunk in chunks if chunk.digest in here]


class HttpsEarly:
    """Implements `site.mailbox.EarlyLine`."""

    def __init__(self, way: Way, shelter: Shelter, *, breath_s: float = 1.0) -> None:
        self._way = way
        self._breath_s = breath_s  #: between two questions to a broker that does not wait
        self._shelter = shelter
        self._held: dict[str, Earlier] = {}  #: what lies in the shelter
        self._promised: dict[str, int] = {}  #: bytes that are still to be written, by job

    async def fetch(self, coming: Coming, ref: TreeRef, allow: Callable[[Tree], Tree]) -> None:
        tree = allow(await self._listed(coming, ref))
        job = coming.job
        self._promise(job, tree.size)
        try:
            with await _in_thread(lambda: self._opened(job, tree)) as part:
                try:
                    await self._follow(coming, part)
                finally:
                    self._held[job] = part.earlier()
        finally:
            del self._promised[job]

    async def drop(self, job: str | None) -> None:
        if job is None:
            self._held.clear()
        else:
            self._held.pop(job, None)
        await _in_thread(lambda: self._shelter.drop_early(job))

    def give(self, job: str, tree: Tree, directory: Path) -> Earlier:
        """Move what there is of ``tree`` into ``directory``; return what is sound of it."""
        held = self._held.pop(job, NOTHING_EARLIER)
        if held is NOTHING_EARLIER:
            return held
        name = folder_of(tree)
        try:
            (self._shelter.early(job) / name).rename(directory / name)
        except OSError:  # another file system, or begun there before: that goes on
            return NOTHING_EARLIER
        return held

    async def _listed(self, coming: Coming, ref: TreeRef) -> Tree:
        pieces = [Chunk(piece.digest, piece.size) for piece in ref.index]
        async for _ in self._arriving(coming, pieces):
            pass
        return await _in_thread(lambda: fetch_index(ref, self._way.source(coming)))

    def _promise(self, job: str, size: int) -> None:
        free = self._shelter.free_bytes() - sum(self._promised.values())
        if 2 * size > free:
            raise StorageFull("site.disk_full")
        self._promised[job] = size

    def _opened(self, job: str, tree: Tree) -> Part:
        earlier = self._held.get(job, NOTHING_EARLIER)
        part = Part.beside(self._shelter.early(job), tree)
        part.believe(earlier)
        return part

    async def _follow(self, coming: Coming, part: Part) -> None:
        """Write what arrives, until all is here."""
        owed = await _in_thread(part.lacking)
        source = self._way.source(coming)
        gauge = Gauge(0, unseen)
        async for here in self._arriving(coming, owed):
            async with _stop() as stop:
                stopping = _Stopping(source, stop)
                await _in_thread(partial(self._write, part, here, stopping, gauge))

    def _write(
        self, part: Part, chunks: Sequence[Chunk], source: ChunkSource, gauge: Gauge
    ) -> None:
        if self._shelter.free_bytes() < _LEAST_FREE_BYTES:
            raise StorageFull("site.disk_full")
        fill(part, chunks, source, gauge)

    async def _arriving(
        self, coming: Coming, chunks: Iterable[Chunk]
    ) -> AsyncIterator[list[Chunk]]:
        """Give ``chunks`` in pieces as they arrive; raise Conflict when nobody seems to send."""
        owed, silent = dict.fromkeys(chunks), 0
        size = sum(chunk.size for chunk in owed)
        least = min(max(size // _PART, _LEAST_BYTES), _MOST_BYTES)
        while owed:
            here = await self._way.arrived(coming, _first_of(owed, 2 * least), least)
            for chunk in here:
                del owed[chunk]
            if here:
                silent = 0
                yield here
                continue
            silent += 1
            if silent >= _SILENT:
                raise Conflict("early.silent")
            await anyio.sleep(self._breath_s)


@dataclass(frozen=True, slots=True)
class _Stopping:
    """A ChunkSource that ends when it is told to."""

    _source: ChunkSource
    _stop: Event

    def fetch(self, chunks: Sequence[Chunk]) -> Iterator[Sound]:
        for sound in self._source.fetch(chunks):
            if self._stop.is_set():
                return
            yield sound


@asynccontextmanager
async def _stop() -> AsyncIterator[Event]:
    """Give what is set as soon as this task is cancelled, for the thread that it waits for."""
    stop = Event()

    async def watch() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            stop.set()

    async with together() as group:
        group.start_soon(watch)
        yield stop
        group.cancel_scope.cancel()


def _first_of(chunks: Iterable[Chunk], most: int) -> list[Chunk]:
    first, size = [], 0
    for chunk in islice(chunks, _ASKED):
        first.append(chunk)
        size += chunk.size
        if size >= most:
            break
    return first


def _base(coming: Coming) -> str:
    return f"v1/site/jobs/{check_job_id(coming.job)}/inputs"


async def _in_thread(work: Callable[[], T]) -> T:
    return await to_thread.run_sync(work)
