"""Mailbox of a carrier: offers are the jobs that a gate keeps, on this very machine.

Nothing is sent: what was cleared stays where the runner staged and recorded it, and the gate hands
that out. A `poll` ends when the carrier is woken, or after its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio
from anyio import to_thread

from sekisho.adapters.chunks_local import LocalChunks, LocalFiles
from sekisho.domain.clock import Clock
from sekisho.domain.egress import Cleared
from sekisho.site.gate import Runs
from sekisho.site.mailbox import Hold, LastWord, Step
from sekisho.site.push import ChunkShelf, PushJob, PushStore, due, owed
from sekisho.site.workplace import Staged
from sekisho.transfer.fetch import fetch_files, fetch_index
from sekisho.transfer.tree import Tree
from sekisho.wire.envelope import TreeRef
from sekisho.wire.v1 import Offer, PollAnswer

#: There is one gate, and nobody to take a job away.
EPOCH = 1
ACCEPT_S = 60.0
#: An offer that was not taken, on a full disk for example, is not made again before.
AGAIN_S = 5.0


class GateMailbox:
    """The lane of a carrier to the gates of its site."""

    def __init__(self, store: PushStore, runs: Runs, shelf: ChunkShelf, clock: Clock) -> None:
        self._store = store
        self._runs = runs
        self._shelf = shelf
        self._clock = clock
        self._woken = anyio.Event()
        self._offered: dict[str, float] = {}  #: when a waiting job was offered last

    def wake(self) -> None:
        """Make a waiting poll look at once."""
        self._woken.set()

    async def poll(
        self,
        *,
        free: int,
        holds: Sequence[str],
        cancelling: Sequence[str],
        wait_s: float,
        coming: Sequence[str] | None = None,  # noqa: ARG002 (there are no drafts here)
    ) -> PollAnswer:
        answer = await to_thread.run_sync(self._look, free, holds, cancelling)
        if not (answer.offers or answer.cancel):
            with anyio.move_on_after(min(wait_s, AGAIN_S) if self._offered else wait_s):
                await self._woken.wait()
            self._woken = anyio.Event()
            answer = await to_thread.run_sync(self._look, free, holds, cancelling)
        return answer

    def _look(self, free: int, holds: Sequence[str], cancelling: Sequence[str]) -> PollAnswer:
        ready = (job for job in reversed(self._store.of(None)) if job.ready and not job.gone)
        jobs = {job.id: job for job in ready if not job.expired}
        waiting = [job for job in jobs.values() if self._runs.run(job.id) is None]
        waiting = [job for job in waiting if not self._aged(job).expired]
        now = self._clock.monotonic()
        self._offered = {j.id: self._offered[j.id] for j in waiting if j.id in self._offered}
        fresh = [j for j in waiting if self._offered.get(j.id, -AGAIN_S) + AGAIN_S <= now]
        self._offered |= dict.fromkeys((j.id for j in fresh[:free]), now)
        cancel = [
            name
            for name in holds
            if name in jobs and jobs[name].cancelled and name not in cancelling
        ]
        return PollAnswer(offers=[_offer(job) for job in fresh[:free]], cancel=cancel)

    def _aged(self, job: PushJob) -> PushJob:
        """End a waiting job whose time is over: nobody takes it but us, and not just now."""
        if not due(job, None, self._clock.now()):
            return job
        return self._store.update(job.id, job.submitter, lambda kept: replace(kept, expired=True))

    def open(self) -> bool:
        """Say whether a job is still to be carried."""
        return any(owed(job, self._runs.run(job.id)) for job in self._store.of(None))

    async def accept(self, hold: Hold) -> None:
        """Nobody else can have it."""

    async def list_inputs(self, hold: Hold, ref: TreeRef) -> Tree:
        chunks = LocalChunks(self._shelf, self._submitter(hold))
        return await to_thread.run_sync(fetch_index, ref, chunks)

    async def fetch(self, hold: Hold, tree: Tree, directory: str, *, lasting: bool) -> None:
        files = LocalFiles(self._shelf, self._submitter(hold), tree)
        fetched = partial(fetch_files, tree, files, Path(directory), lasting=lasting)
        await to_thread.run_sync(fetched)

    async def send(self, hold: Hold, staged: Cleared[Staged]) -> None:
        """Leave it staged: the gate hands it out from there."""

    async def publish(self, hold: Hold, snapshot: Cleared[bytes]) -> None:
        await to_thread.run_sync(self._store.publish, hold.job, snapshot.value)

    async def tell(self, hold: Hold, news: Cleared[tuple[Step, ...]] | Cleared[LastWord]) -> None:
        """Leave it recorded: the gate reads it off the run."""

    def _submitter(self, hold: Hold) -> str:
        run = self._runs.run(hold.job)
        return "" if run is None else run.submitter


def _offer(job: PushJob) -> Offer:
    return Offer(
        job=job.id,
        epoch=EPOCH,
        submitter=job.submitter,
        request=job.request,
        accept_s=ACCEPT_S,
    )
