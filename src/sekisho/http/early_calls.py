"""What a site's agent does with inputs that are still being sent: nothing is accepted by it."""

from __future__ import annotations

from dataclasses import dataclass

from sekisho.broker.arriving import arrival_topic
from sekisho.broker.desk import Desk
from sekisho.broker.jobs import job_topic
from sekisho.domain.job import Job, JobState
from sekisho.http.call import Call, Stream
from sekisho.http.chunk_calls import answered
from sekisho.http.longpoll import LongPoll
from sekisho.http.threads import Threads
from sekisho.wire.frames import Chunk, pack_digests


@dataclass(frozen=True, slots=True)
class EarlyCalls:
    """The routes about inputs of the caller's own site, of jobs that no agent has taken."""

    desk: Desk
    polls: LongPoll
    threads: Threads

    async def arrived(self, call: Call) -> bytes:
        """Answer when enough of what is asked for is here, or all, or no more will come."""
        asked, least = set(call.message), call.query.least

        def here() -> tuple[Job, list[Chunk]]:
            job = self.desk.chunks.waiting(call.user, call.id)
            return job, self.desk.chunks.arrived(job, call.message, least)

        async def look() -> tuple[Job, list[Chunk]]:
            return await self.threads.run(here)

        def news(seen: tuple[Job, list[Chunk]]) -> bool:
            job, chunks = seen
            whole = job.state is not JobState.DRAFT or len(chunks) == len(asked)
            return whole or sum(chunk.size for chunk in chunks) >= least

        topics = [arrival_topic(call.id), job_topic(call.id)]
        _, chunks = await self.polls.until(news, look, topics=topics, wait_s=call.query.wait_s)
        return pack_digests(chunk.digest for chunk in chunks)

    def fetch(self, call: Call) -> Stream | bytes:
        job = self.desk.chunks.waiting(call.user, call.id)
        found = self.desk.chunks.fetch(job, call.message, verify=call.query.verify)
        return answered(*found)
