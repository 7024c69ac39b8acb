"""The runner: carries one job through its stages, in either mode.

A reconcile loop: look at the stage, take its one idempotent step, go on. Nothing assumes that the
step before ran in this process. A fault that may pass is tried again for as long as the work is
owed; one that may not has become a verdict inside the step.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import anyio
import structlog

from sekisho.domain.backoff import delay
from sekisho.domain.errors import InvalidTransition, SekishoError, StaleEpoch, SyncFailed
from sekisho.domain.outage import Outage, failed
from sekisho.domain.run import Run, Stage, advance
from sekisho.domain.sitelog import Kind
from sekisho.site.desk import Control, Desk, NotNow, first_of, together
from sekisho.site.early import Early
from sekisho.site.intake import Intake
from sekisho.site.launch import Launch
from sekisho.site.publish import Publisher
from sekisho.site.release import Release
from sekisho.wire.v1 import Offer

Step = Callable[[Run, Control], Awaitable[Run]]
log = structlog.get_logger()


class Runner:
    """Carries runs. One runner for all runs of a site, so that limits per command hold."""

    def __init__(self, desk: Desk, early: Early) -> None:
        self._desk = desk
        self._release = Release(desk)
        self._intake = Intake(desk, self._release, early)
        self._launch = Launch(desk, self._intake, self._release)
        self._publisher = Publisher(desk, self._release)
        self._steps: dict[Stage, Step] = {
            Stage.TAKEN: self._intake.accept,
            Stage.ACCEPTED: self._intake.stage,
            Stage.STAGED: self._launch.intend,
            Stage.SUBMITTED: self._launch.submit,
            Stage.RUNNING: self._launch.watch,
            Stage.ENDED: self._release.collect,
            Stage.COLLECTED: self._release.deliver,
        }

    async def take(self, offer: Offer, known: Run | None) -> Run | None:
        """Return the journaled run of ``offer``; None when nothing is to be carried.

        ``known`` is what the journal has of this job, which nobody carries just now: given up
        before any start, it begins afresh; ended, it is refused as a replay; else it is ours
        already.
        """
        if known is None or never_started(known):
            return await self._intake.take(offer)
        log.warning("offer_not_new", job=offer.job, epoch=offer.epoch, stage=known.stage.value)
        if known.settled:
            await self._intake.refuse_replay(offer)
        return None

    async def carry(self, run: Run, control: Control) -> Run:
        """Carry ``run`` as far as it goes: until nothing is owed, or nobody wants to wait."""
        self._launch.adopt(run)
        failures, outage = 0, None
        async with together() as group:
            group.start_soon(self._announce_started, control)
            group.start_soon(self._publisher.follow, control)
            while not run.settled:
                stage = run.stage
                try:
                    run = await self._step(run, control)
                except NotNow:
                    break
                except SyncFailed:
                    raise
                except SekishoError as error:
                    failures = 1 if error.advanced else failures + 1
                    outage = failed(outage, error.code, self._desk.clock.monotonic())
                    if not await self._pause(run, control, failures, outage, error):
                        break
                else:
                    failures, outage = 0, None
                    if run.stage is not stage:
                        log.info("run_moved", job=run.job, epoch=run.epoch, stage=run.stage.value)
            group.cancel_scope.cancel()
        return run

    async def _step(self, run: Run, control: Control) -> Run:
        try:
            return await self._next_step(run, control)(run, control)
        except SekishoError as error:
            if not _disowns(error):
                raise
            return await self._disown(run, control, error)

    def _next_step(self, run: Run, control: Control) -> Step:
        if control.offered > run.epoch:
            return self._intake.accept_anew
        return self._release.give_verdict if run.stage.final else self._steps[run.stage]

    async def _pause(
        self, run: Run, control: Control, failures: int, outage: Outage, error: SekishoError
    ) -> bool:
        """Wait before the next try; say whether there is to be one now.

        Logged is the first of a row of failures, then ever more seldom; all of them at `debug`.
        """
        seconds = delay(failures, self._desk.roll())
        tell = log.warning if outage.speaks else log.debug
        tell(
            "run_waits",
            job=run.job,
            epoch=run.epoch,
            stage=run.stage.value,
            code=error.code,
            tries=outage.tries,
            seconds=round(seconds, 2),
        )
        if not control.patient and failures > 3:
            return False
        await first_of(control, lambda: self._desk.sleep(seconds))
        return True

    async def _disown(self, run: Run, control: Control, error: SekishoError) -> Run:
        """Act on the broker's word that the job is not ours (any more).

        What runs is stopped first. What has been started is never forgotten: the log says so.
        """
        if run.stage is Stage.RUNNING:
            await self._launch.end(run, control)
        if run.stage.final:
            run = replace(run, told=(*run.told, run.stage))
        else:
            run = advance(run, Stage.DROPPED)
        await self._desk.log(run, (Kind.DROPPED, {"code": error.code}))
        log.warning("run_dropped", job=run.job, epoch=run.epoch, code=error.code)
        return await self._desk.save(replace(run, finished_at=self._desk.clock.now()))

    async def _announce_started(self, control: Control) -> None:
        """Report a start beside the watch, so that a broker outage never delays a time limit."""
        failures = 0
        while True:
            await control.started.wait()
            run, control.started = control.running, anyio.Event()
            try:
                await self._release.announce(run) if run else None
            except SekishoError as error:
                if run is not control.running:
                    continue  # it was offered anew meanwhile, and is told under the new epoch
                if _disowns(error):  # the watch acts on it
                    control.disowned = error
                    control.wake()
                    continue
                failures += 1
                await self._desk.sleep(delay(failures, self._desk.roll()))
                control.started.set()


def never_started(run: Run) -> bool:
    """Say whether ``run`` was given up before a start was possible: it may be offered anew."""
    return run.stage is Stage.DROPPED and not run.token


def _disowns(error: SekishoError) -> bool:
    """Say whether the broker means that the job is somebody else's, ended, or unknown to it."""
    return isinstance(error, StaleEpoch | InvalidTransition) or error.code == "job.not_found"
