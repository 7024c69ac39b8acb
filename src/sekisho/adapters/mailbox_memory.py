"""Mailbox in memory: a site and a broker in one process, without a wire between them.

The broker's half is the broker itself (`sekisho.broker.desk`), so that jobs here obey the same
table, epochs and quotas as behind HTTPS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from anyio import to_thread

from sekisho import __version__
from sekisho.broker.chunks import Claim
from sekisho.broker.desk import Desk
from sekisho.broker.jobs import site_topic
from sekisho.broker.ports import Tenant
from sekisho.domain.egress import Cleared
from sekisho.site.mailbox import Hold, LastWord, Step
from sekisho.site.workplace import Staged
from sekisho.transfer.fetch import fetch_files, fetch_index
from sekisho.transfer.send import send_tree
from sekisho.transfer.tree import Tree
from sekisho.wire.envelope import TreeRef
from sekisho.wire.frames import Chunk, Frame, Sound
from sekisho.wire.v1 import Accept, Poll, PollAnswer, Publish, Report, Verdict

T = TypeVar("T")


class BrokerChunks:
    """Implements `transfer.port.ChunkPort` for one claim on one job of a broker in this process."""

    def __init__(self, broker: Desk, claim: Claim, job: str) -> None:
        self._broker = broker
        self._claim = claim
        self._job = job

    def missing(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        lacking = set(self._broker.chunks.missing(self._claim, self._job, chunks))
        return [chunk for chunk in chunks if chunk.digest in lacking]

    def send(self, chunks: Iterable[tuple[Chunk, bytes]]) -> None:
        job = self._broker.chunks.open(self._claim, self._job)
        for chunk, data in chunks:
            self._broker.chunks.store(job, [Frame(chunk.digest, data)])

    def fetch(self, chunks: Sequence[Chunk]) -> Iterator[Sound]:
        job = self._broker.chunks.open(self._claim, self._job)
        digests = list(dict.fromkeys(chunk.digest for chunk in chunks))
        _, found = self._broker.chunks.fetch(job, digests, verify=True)
        return (Sound(frame.unpacked()) for frame in found)


class MemoryMailbox:
    """The lane of one agent ``instance`` of ``site`` to ``broker``."""

    def __init__(self, broker: Desk, site: str, instance: str) -> None:
        self._broker = broker
        self._site = site
        self._instance = instance

    async def poll(
        self,
        *,
        free: int,
        holds: Sequence[str],
        cancelling: Sequence[str],
        wait_s: float,
        coming: Sequence[str] | None = None,
    ) -> PollAnswer:
        message = Poll(
            instance=self._instance,
            free=free,
            wait_s=wait_s,
            holds=list(holds),
            cancelling=list(cancelling),
            agent_version=__version__,
            coming=None if coming is None else list(coming),
        )
        disabled = sorted(self._broker.offers.seen(self._site, message).disabled_commands)
        end = self._broker.ports.clock.monotonic() + wait_s
        with self._broker.ports.wakeups.listen([site_topic(self._site)]) as notices:
            while True:
                answer = self._broker.offers.look(self._site, message)
                drafts = answer.coming or answer.gone
                changed = answer.disabled_commands != disabled
                if answer.offers or answer.cancel or drafts or changed:
                    return answer
                left = end - self._broker.ports.clock.monotonic()
                if left <= 0 or not await notices.wait(left):
                    return answer

    async def accept(self, hold: Hold) -> None:
        message = Accept(epoch=hold.epoch, instance=self._instance)
        await _in_thread(lambda: self._broker.offers.accept(self._site, hold.job, message))

    async def list_inputs(self, hold: Hold, ref: TreeRef) -> Tree:
        return await _in_thread(lambda: fetch_index(ref, self._chunks(hold)))

    async def fetch(self, hold: Hold, tree: Tree, directory: str, *, lasting: bool) -> None:
        chunks = self._chunks(hold)
        await _in_thread(lambda: fetch_files(tree, chunks, Path(directory), lasting=lasting))

    async def send(self, hold: Hold, staged: Cleared[Staged]) -> None:
        copy = staged.value
        await _in_thread(lambda: send_tree(copy.tree, copy.read, self._chunks(hold)))

    async def publish(self, hold: Hold, snapshot: Cleared[bytes]) -> None:
        message = Publish(epoch=hold.epoch, instance=self._instance, snapshot=snapshot.value)
        await _in_thread(lambda: self._broker.publications.publish(self._site, hold.job, message))

    async def tell(self, hold: Hold, news: Cleared[tuple[Step, ...]] | Cleared[LastWord]) -> None:
        match news.value:
            case LastWord(verdict=verdict, result=result, tree=tree, steps=steps):
                last = Verdict(
                    epoch=hold.epoch,
                    instance=self._instance,
                    verdict=verdict,
                    result=result,
                    tree=tree,
                    steps=list(steps),
                )
                await _in_thread(lambda: self._broker.offers.verdict(self._site, hold.job, last))
            case steps:
                report = Report(epoch=hold.epoch, instance=self._instance, steps=list(steps))
                await _in_thread(lambda: self._broker.offers.report(self._site, hold.job, report))

    def _chunks(self, hold: Hold) -> BrokerChunks:
        claim = Claim(tenant=Tenant(site=self._site), epoch=hold.epoch, instance=self._instance)
        return BrokerChunks(self._broker, claim, hold.job)


async def _in_thread(work: Callable[[], T]) -> T:
    return await to_thread.run_sync(work)
