"""What the chunk routes do, for either side: constant memory, whatever the size of a tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from sekisho.broker.chunks import Claim
from sekisho.broker.desk import Desk
from sekisho.broker.ports import Tenant
from sekisho.domain.job import Job
from sekisho.http.call import Call, Stream
from sekisho.http.threads import Threads
from sekisho.wire.frames import Frame, FrameReader, pack_digests
from sekisho.wire.v1 import Done

#: So much of a stream is gathered before it is cut into chunks and stored, off the event loop.
_GATHER_BYTES: Final = 2 << 20
#: So much of an answer is read in one go.
_PIECE_BYTES: Final = 1 << 20


def by_submitter(call: Call) -> Claim:
    """Return the claim of a submitter on a job of their own."""
    return Claim(tenant=Tenant(submitter=call.user))


def by_site(call: Call) -> Claim:
    """Return the claim of a site's agent on a job that it holds."""
    return Claim(
        tenant=Tenant(site=call.user), epoch=call.query.epoch, instance=call.query.instance
    )


@dataclass(frozen=True, slots=True)
class ChunkCalls:
    """The chunk routes of one side."""

    desk: Desk
    threads: Threads
    claim: Callable[[Call], Claim]

    def missing(self, call: Call) -> bytes:
        return pack_digests(self.desk.chunks.missing(self.claim(call), call.id, call.message))

    async def store(self, call: Call) -> Done:
        """Store the frames as they arrive; what was stored before an error stays stored."""
        job = await self.threads.run(self.desk.chunks.open, self.claim(call), call.id)
        reader = FrameReader()
        gathered: list[bytes] = []
        size = 0
        async with aclosing(call.body()) as arriving:
            async for piece in arriving:
                gathered.append(piece)
                size += len(piece)
                if size >= _GATHER_BYTES:
                    await self.threads.run(self._take, job, reader, gathered)
                    gathered, size = [], 0
        await self.threads.run(self._take, job, reader, gathered)
        reader.end()
        return Done()

    def fetch(self, call: Call) -> Stream | bytes:
        job = self.desk.chunks.open(self.claim(call), call.id)
        return answered(*self.desk.chunks.fetch(job, call.message, verify=call.query.verify))

    def _take(self, job: Job, reader: FrameReader, data: list[bytes]) -> None:
        if done := reader.split(*data):
            self.desk.chunks.store(job, done)


def answered(size: int, frames: Iterator[Frame]) -> Stream | bytes:
    """Answer piece by piece; but what is small at once: each piece costs a thread."""
    pieces = _together(frames)
    return b"".join(pieces) if size <= _PIECE_BYTES else Stream(size, pieces)


def _together(frames: Iterator[Frame]) -> Iterator[bytes]:
    """Return the bytes of ``frames``, several at a time."""
    gathered: list[bytes] = []
    size = 0
    for frame in frames:
        gathered += frame.pieces()
        size += len(frame)
        if size >= _PIECE_BYTES:
            yield b"".join(gathered)
            gathered, size = [], 0
    yield b"".join(gathered)
