"""The agent: calls out for offers, carries runs, and lets nobody in.

It opens no socket to listen on. Drain: take nothing new, finish what is in hand, end. Stop at once:
end now; what runs goes on without us and is adopted by the next agent. Restart is the normal case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Final, Protocol

import anyio
import structlog
from anyio.abc import TaskGroup

from sekisho.domain.backoff import delay
from sekisho.domain.errors import SekishoError, SyncFailed
from sekisho.domain.limits import MAX_QUEUE_TIME, MIN_POLL_SECONDS, POLL_SECONDS
from sekisho.domain.outage import Outage, failed
from sekisho.domain.run import Run
from sekisho.site.desk import Control, Desk, at_workplace, in_thread, together
from sekisho.site.early import Early
from sekisho.site.runner import Runner, never_started
from sekisho.site.slots import IN_HAND
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
        tidy: bool = True,
    ) -> None:
        self._desk = desk
        self._desires = desires
        self._capacity = capacity
        self._alive = alive  #: called at every turn of the loop, for a watchdog
        self._tidy = tidy  #: drop what is past its retention; not where a run is its job's record
        self._early = Early(desk)
        self._runner = Runner(desk, self._early)
        self._runs: dict[str, Run] = {}
        self._controls: dict[str, Control] = {}
        self._told: set[str] = set()  #: cancels that were passed on
        self._draining = False
        self._outage: Outage | None = None
        self._poll_scope: anyio.CancelScope | None = None
        self._asked = 0  #: how many offers the poll that is under way may bring
        self._moving: set[str] = set()  #: jobs that are being taken or purged

    def drain(self) -> None:
        """Take nothing new; end when everything in hand is settled."""
        self._draining = True
        self.wake()

    def wake(self) -> None:
        """Break off the long poll, to look at the world anew."""
        if self._poll_scope is not None:
            self._poll_scope.cancel()

    async def serve(self) -> None:
        """Work until drained. Raise SyncFailed when the disk cannot be trusted any more."""
        async with together() as group:
            await self._remember(patient=True)
            self._carry_all(group)
            if self._tidy:
                group.start_soon(self._hygiene)
            failures = 0
            while not (self._draining and not self._controls):
                self._alive()
                failures = await self._turn(group, failures)
            await self._early.close()
            group.cancel_scope.cancel()
        log.info("agent_stopped", unsettled=self._unsettled())

    async def once(self) -> int:
        """Do everything that can be done without waiting; return how many runs are still open.

        Without a broker the site's own part is done all the same; then its error is raised.
        """
        await self._remember(patient=False)
        answer, failed = PollAnswer(), None
        try:
            answer = await self._poll(0.0)
        except SekishoError as error:
            failed = error
        async with together() as group:
            self._heed(answer)
            self._carry_all(group)
            await self._take_all(group, answer, patient=False)
        await self._purge()
        if failed is not None:
            raise failed
        return self._unsettled()

    def _unsettled(self) -> int:
        return sum(not run.settled for run in self._runs.values())

    async def _remember(self, *, patient: bool) -> None:
        await self._early.clear()
        for run in await in_thread(self._desk.journal.runs):
            self._runs[run.job] = run
            if not run.settled:
                self._desk.slots.take(IN_HAND, run.job)
                log.info("run_adopted", job=run.job, epoch=run.epoch, stage=run.stage.value)
                self._controls[run.job] = Control(patient=patient)

    def _carry_all(self, group: TaskGroup) -> None:
        for job, control in self._controls.items():
            group.start_soon(self._carry, self._runs[job], control)

    async def _carry(self, run: Run, control: Control) -> None:
        crashed = False
        while True:
            try:
                if crashed:
                    run = await self._remembered(run)
                run = await self._runner.carry(run, control)
                break
            except SyncFailed:  # what the disk says cannot be trusted any more: end, look afresh
                raise
            except Exception:  # boundary: a fault in one run must not stop the others
                crashed = True
                log.exception("run_crashed", job=run.job, epoch=run.epoch)
                if not control.patient:
                    break
                await self._desk.sleep(CRASH_SECONDS)
        self._runs[run.job] = run
        await self._early.drop(run.job)
        del self._controls[run.job]
        self._desk.slots.leave(IN_HAND, run.job)
        self._told.discard(run.job)
        if self._draining or not self._asked:
            self.wake()  # there is room now; a poll that may bring an offer is not broken off

    async def _remembered(self, run: Run) -> Run:
        """Return what the journal has of ``run``: the truth after a fault of our own."""
        runs = await in_thread(self._desk.journal.runs)
        return next((kept for kept in runs if kept.job == run.job), run)

    async def _turn(self, group: TaskGroup, failures: int) -> int:
        """Poll once and act on the answer; return how many polls in a row have failed."""
        try:
            wait_s = MIN_POLL_SECONDS if failures or self._full() else POLL_SECONDS
            answer = await self._poll(wait_s, self._early.heard())
        except SekishoError as error:
            failures += 1
            seconds = delay(failures, self._desk.roll())
            self._note_failure(error, seconds)
            await self._rest(seconds)
            return failures
        self._note_answer()
        self._heed(answer)
        good = await self._take_all(group, answer, patient=True)
        await self._heed_drafts(group, answer)
        if good:
            return 0
        await self._rest(delay(failures + 1, self._desk.roll()))  # it is offered again at once
        return failures + 1

    def _note_failure(self, error: SekishoError, seconds: float) -> None:
        """Log that a poll failed: the first, then ever more seldom, all of them at `debug`."""
        now = self._desk.clock.monotonic()
        self._outage = outage = failed(self._outage, error.code, now)
        tell = log.warning if outage.speaks else log.debug
        tell("poll_failed", code=error.code, tries=outage.tries, seconds=round(seconds, 2))

    def _note_answer(self) -> None:
        """Know that the broker answers; after an outage, whatever waits for it need not wait on."""
        if self._outage is None:
            return
        for control in self._controls.values():
            control.wake()
        away = self._desk.clock.monotonic() - self._outage.since
        log.info("connected_again", tries=self._outage.tries, minutes=round(away / 60, 1))
        self._outage = None

    async def _rest(self, seconds: float) -> None:
        with anyio.CancelScope() as self._poll_scope:
            await self._desk.sleep(seconds)

    async def _poll(self, wait_s: float, coming: Sequence[str] | None = None) -> PollAnswer:
        """Ask the broker; an empty answer when `wake` broke the waiting off."""
        self._asked = self._free()
        with anyio.CancelScope() as self._poll_scope:
            return await self._desk.mailbox.poll(
                free=self._asked,
                holds=tuple(self._controls),
                cancelling=tuple(self._told & self._controls.keys()),
                wait_s=wait_s,
                coming=coming,
            )
        return PollAnswer()

    def _free(self) -> int:
        if not self._taking():
            return 0
        return max(0, self._capacity() - len(self._controls) - self._elsewhere())

    def _taking(self) -> bool:
        return not (self._draining or self._desires.paused())

    def _elsewhere(self) -> int:
        """Return how many jobs the site has in hand by another lane."""
        return self._desk.slots.others(IN_HAND)

    def _full(self) -> bool:
        """Say whether there is room only when another lane is done, which nobody tells us."""
        return self._free() == 0 and bool(self._elsewhere())

    def _heed(self, answer: PollAnswer) -> None:
        if answer.disabled_commands is not None:
            self._desires.deny(frozenset(answer.disabled_commands))
        for job in answer.cancel:
            if control := self._controls.get(job):
                log.info("cancel_heard", job=job)
                self._told.add(job)
                control.cancel()

    async def _heed_drafts(self, group: TaskGroup, answer: PollAnswer) -> None:
        """Begin with inputs that are still being sent, where their jobs could be taken now."""
        if not self._taking():
            await self._early.close()
        elif self._early.heard() is not None:
            await self._early.heed(group, answer, self._free())

    async def _take_all(self, group: TaskGroup, answer: PollAnswer, *, patient: bool) -> bool:
        """Take what is offered, side by side: they share the disk's syncs.

        Say whether nothing stood in the way of any of it.
        """
        good: list[bool] = []

        async def one(offer: Offer) -> None:
            good.append(await self._take_one(group, offer, patient=patient))

        # what is in hand hears of it before it goes on, and would speak under its old epoch
        fresh = [offer for offer in answer.offers if not self._in_hand(offer)]
        async with together() as taking:
            for offer in fresh:
                taking.start_soon(one, offer)
        return all(good)

    def _in_hand(self, offer: Offer) -> bool:
        """Tell a run that is being carried of its new epoch; say whether there is one."""
        control = self._controls.get(offer.job)
        if control is None:
            return False
        log.info("offer_in_hand", job=offer.job, epoch=offer.epoch)
        control.offered = offer.epoch
        control.wake()
        return True

    async def _take_one(self, group: TaskGroup, offer: Offer, *, patient: bool) -> bool:
        if offer.job in self._moving:
            return False  # it is being purged: the broker will offer again
        if not self._desk.slots.take(IN_HAND, offer.job, self._capacity()):
            return False  # the site's other lane was quicker
        with self._moved(offer.job):
            taken, run = await self._take(offer)
        if run is None:
            self._desk.slots.leave(IN_HAND, offer.job)
        else:
            log.info("offer_taken", job=run.job, epoch=run.epoch, stage=run.stage.value)
            control = Control(patient=patient)
            self._runs[run.job], self._controls[run.job] = run, control
            self._early.taken(run.job)
            group.start_soon(self._carry, run, control)
        return taken

    async def _take(self, offer: Offer) -> tuple[bool, Run | None]:
        """Return whether the offer was dealt with, and the run that is to be carried."""
        try:
            return True, await self._runner.take(offer, self._runs.get(offer.job))
        except SyncFailed:
            raise
        except SekishoError as error:
            log.warning("offer_not_taken", job=offer.job, epoch=offer.epoch, code=error.code)
        except Exception:  # boundary: no offer, whatever it holds, stops the agent
            log.exception("offer_crashed", job=offer.job, epoch=offer.epoch)
        return False, None

    @contextmanager
    def _moved(self, job: str) -> Iterator[None]:
        self._moving.add(job)
        try:
            yield
        finally:
            self._moving.discard(job)

    async def _hygiene(self) -> None:
        while True:
            await self._purge()
            await self._desk.sleep(HYGIENE_SECONDS)

    async def _purge(self) -> None:
        """Drop the work directories, then the runs, that are past their retention."""
        now = self._desk.clock.now()
        for run in [run for run in self._runs.values() if run.settled]:
            if run.job in self._moving or (run.keep_until is not None and now <= run.keep_until):
                continue
            with self._moved(run.job):
                try:
                    await self._drop(run, now)
                except SyncFailed:
                    raise
                except SekishoError as error:
                    log.warning("purge_failed", job=run.job, code=error.code)

    async def _drop(self, run: Run, now: datetime) -> None:
        if not await at_workplace(run, self._desk.workplace(run).purge, run.job):
            log.warning("purge_incomplete", job=run.job)
        elif not (never_started(run) and now <= (run.finished_at or now) + MAX_QUEUE_TIME):
            await in_thread(self._desk.journal.forget, run.job)
            del self._runs[run.job]
