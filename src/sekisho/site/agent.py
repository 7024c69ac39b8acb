"""The agent: calls out for offers, carries runs, and lets nobody in.

It opens no socket to listen on. Drain: take nothing new, finish what is in hand, end. Stop at once:
end now; what runs goes on without us and is adopted by the next agent. Restart is the normal case.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import anyio
import structlog
from anyio.abc import TaskGroup

from sekisho.domain.backoff import delay
from sekisho.domain.errors import SekishoError, SyncFailed
from sekisho.domain.limits import MIN_POLL_SECONDS, POLL_SECONDS
from sekisho.domain.run import Run
from sekisho.site.desk import Control, Desk, in_thread
from sekisho.site.runner import Runner
from sekisho.wire.v1 import Offer, PollAnswer

HYGIENE_SECONDS: Final = 600.0
#: After a fault of our own a run is looked at again; others go on meanwhile.
CRASH_SECONDS: Final = 30.0
log = structlog.get_logger()


class Desires(Protocol):
    """What people at the site want of the agent just now."""

    def paused(self) -> bool:
        """Say whether to take no new work."""
        ...

    def deny(self, commands: frozenset[str]) -> None:
        """Remember which commands the broker's side has switched off."""
        ...


class Agent:
    """One agent of one site."""

    def __init__(
        self,
        desk: Desk,
        desires: Desires,
        *,
        capacity: Callable[[], int],
        alive: Callable[[], None],
    ) -> None:
        self._desk = desk
        self._desires = desires
        self._capacity = capacity
        self._alive = alive  #: called at every turn of the loop, for a watchdog
        self._runner = Runner(desk)
        self._runs: dict[str, Run] = {}
        self._controls: dict[str, Control] = {}
        self._told: set[str] = set()  #: cancels that were passed on
        self._draining = False
        self._poll_scope: anyio.CancelScope | None = None
        self._idle = anyio.Event()

    def drain(self) -> None:
        """Take nothing new; end when everything in hand is settled."""
        self._draining = True
        self.wake()

    def wake(self) -> None:
        """Break off the long poll, to look at the world anew."""
        if self._poll_scope is not None:
            self._poll_scope.cancel()

    async def serve(self) -> None:
        """Work until drained."""
        async with anyio.create_task_group() as group:
            await self._adopt(group, patient=True)
            group.start_soon(self._hygiene)
            failures = 0
            while not (self._draining and not self._controls):
                self._alive()
                failures = await self._turn(group, failures)
            group.cancel_scope.cancel()
        log.info("agent_stopped", unsettled=sum(not r.settled for r in self._runs.values()))

    async def once(self) -> int:
        """Do everything that can be done without waiting; return how many runs are still open."""
        async with anyio.create_task_group() as group:
            await self._adopt(group, patient=False)
            answer = PollAnswer()
            if self._free():
                answer = await self._poll(0.0)
            await self._heed(group, answer, patient=False)
        await self._purge()
        return sum(not run.settled for run in self._runs.values())

    async def _adopt(self, group: TaskGroup, *, patient: bool) -> None:
        for run in await in_thread(self._desk.journal.runs):
            self._runs[run.job] = run
            if not run.settled:
                log.info("run_adopted", job=run.job, epoch=run.epoch, stage=run.stage.value)
                self._start(group, run, patient=patient)

    def _start(self, group: TaskGroup, run: Run, *, patient: bool) -> None:
        control = Control(patient=patient)
        self._controls[run.job] = control
        group.start_soon(self._carry, run, control)

    async def _carry(self, run: Run, control: Control) -> None:
        while True:
            try:
                run = await self._runner.carry(run, control)
            except SyncFailed:  # what the disk says cannot be trusted any more: end, look afresh
                raise
            except Exception:  # boundary: a fault in one run must not stop the others
                log.exception("run_crashed", job=run.job, epoch=run.epoch)
                await self._desk.sleep(CRASH_SECONDS)
                run = await self._remembered(run)
            else:
                break
        self._runs[run.job] = run
        self._controls.pop(run.job, None)
        self._told.discard(run.job)
        if self._draining or run.settled:
            self.wake()

    async def _remembered(self, run: Run) -> Run:
        """Return what the journal has of ``run``: the truth after a fault of our own."""
        runs = await in_thread(self._desk.journal.runs)
        return next((kept for kept in runs if kept.job == run.job), run)

    async def _turn(self, group: TaskGroup, failures: int) -> int:
        """Poll once and act on the answer; return how many polls in a row have failed."""
        try:
            answer = await self._poll(POLL_SECONDS if not failures else MIN_POLL_SECONDS)
        except SekishoError as error:
            failures += 1
            seconds = delay(failures, self._desk.roll())
            log.warning("poll_failed", code=error.code, seconds=round(seconds, 2))
            with anyio.CancelScope() as self._poll_scope:
                await self._desk.sleep(seconds)
            return failures
        await self._heed(group, answer, patient=True)
        return 0

    async def _poll(self, wait_s: float) -> PollAnswer:
        """Ask the broker; an empty answer when `wake` broke the waiting off."""
        with anyio.CancelScope() as self._poll_scope:
            return await self._desk.mailbox.poll(
                free=self._free(),
                holds=tuple(self._controls),
                cancelling=tuple(self._told & self._controls.keys()),
                wait_s=wait_s,
            )
        return PollAnswer()

    def _free(self) -> int:
        if self._draining or self._desires.paused():
            return 0
        return max(0, self._capacity() - len(self._controls))

    async def _heed(self, group: TaskGroup, answer: PollAnswer, *, patient: bool) -> None:
        if answer.disabled_commands is not None:
            self._desires.deny(frozenset(answer.disabled_commands))
        for job in answer.cancel:
            if control := self._controls.get(job):
                log.info("cancel_heard", job=job)
                self._told.add(job)
                control.cancel()
        for offer in answer.offers:
            await self._take(group, offer, patient=patient)

    async def _take(self, group: TaskGroup, offer: Offer, *, patient: bool) -> None:
        if offer.job in self._controls:
            return  # still busy with it: the broker will offer again
        try:
            run = await self._runner.take(offer, self._runs.get(offer.job))
        except SyncFailed:
            raise
        except SekishoError as error:
            log.warning("offer_not_taken", job=offer.job, epoch=offer.epoch, code=error.code)
            return
        if run is not None:
            log.info("offer_taken", job=run.job, epoch=run.epoch, stage=run.stage.value)
            self._runs[run.job] = run
            self._start(group, run, patient=patient)

    async def _hygiene(self) -> None:
        while True:
            await self._purge()
            await self._desk.sleep(HYGIENE_SECONDS)

    async def _purge(self) -> None:
        """Drop the work directories, then the runs, that are past their retention."""
        now = self._desk.clock.now()
        for run in [r for r in self._runs.values() if r.settled]:
            if run.keep_until is None or run.keep_until < now:
                try:
                    await in_thread(self._desk.workplace.purge, run.job)
                    await in_thread(self._desk.journal.forget, run.job)
                except SekishoError as error:
                    log.warning("purge_failed", job=run.job, code=error.code)
                else:
                    del self._runs[run.job]
