"""From a staged job to its end: the intent, the one start, the watch, the stop.

P3: a start is recorded with its token before it can happen, and whatever is started twice by a
crash meets the run latch. P9: a run that was asked to stop is `cancelled` only when it is seen dead
without having succeeded. What was started and has vanished is `lost`: never guessed, never re-run,
unless the manifest calls the command idempotent.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Final

import anyio
import structlog

from sekisho.domain.egress import Fault, clear_reason
from sekisho.domain.errors import Refused, SekishoError
from sekisho.domain.manifest import Admission, Command, environment
from sekisho.domain.resources import LOCAL, Venue
from sekisho.domain.run import Part, Run, Stage, Stop, advance
from sekisho.domain.sitelog import Kind
from sekisho.site.desk import Control, Desk, NotNow, at_workplace, first_of
from sekisho.site.intake import Intake, must_last
from sekisho.site.licence import HOLD_SECONDS, Licences
from sekisho.site.outcome import INTERRUPTED, KILLED, fate
from sekisho.site.release import Release
from sekisho.site.scheduler import (
    Exited,
    Gone,
    LaunchSpec,
    Observation,
    Pending,
    Running,
    Ticket,
)
from sekisho.site.steps import Steps

GRACE_SECONDS: Final = 10.0
MAX_ATTEMPTS: Final = 3
#: How long a look at a running job is trusted when nothing hints at a change.
LOOK_SECONDS: Final = 30.0
#: A job that ends within this time is reported as started and ended in one message.
ANNOUNCE_SECONDS: Final = 0.05
log = structlog.get_logger()


class Launch:
    """The steps around the command itself."""

    def __init__(self, desk: Desk, intake: Intake, release: Release) -> None:
        self._desk = desk
        self._intake = intake
        self._release = release
        self._licences = Licences(desk)
        self._steps = Steps(desk)
        self._freed = anyio.Event()

    def adopt(self, run: Run) -> None:
        """Count ``run`` among the running ones of its command, or not, as the journal has it."""
        if run.stage in (Stage.SUBMITTED, Stage.RUNNING):
            self._desk.slots.take(run.command, run.job)
        else:
            self.leave(run)

    def leave(self, run: Run) -> None:
        """Give back the place that ``run`` may have among the running ones of its command."""
        self._desk.slots.leave(run.command, run.job)
        self._freed.set()
        self._freed = anyio.Event()

    async def intend(self, run: Run, control: Control) -> Run:
        """Record that the command is going to be started, once its turn has come."""
        while True:
            if control.stop is not None:
                return await self._closed(run, Stage.CANCELLED, None)
            try:
                admission = self._intake.admission(run)
            except Refused as reason:  # the site's word has changed since the job was accepted
                return await self._closed(run, Stage.REFUSED, clear_reason(reason))
            run = await self._intake.reviewed(run)
            if run.stage.final:
                return run
            if await self._free(run, admission.command):
                break
            if not control.patient:
                raise NotNow
            await first_of(control, self._freed.wait, partial(self._desk.sleep, HOLD_SECONDS))
        elsewhere = admission.command.venue.host != run.venue.host
        if elsewhere or (must_last(admission.command) and not run.kept):
            self.leave(run)
            return await self._moved(run, admission.command.venue)
        return await self._begun(run, admission, control)

    async def _free(self, run: Run, command: Command) -> bool:
        """Say whether the turn of ``run`` has come; it has a slot of its command then."""
        if not self._desk.slots.take(run.command, run.job, command.max_running):
            return False
        if await self._licences.free(command):
            return True
        self._desk.slots.leave(run.command, run.job)
        return False

    async def _begun(self, run: Run, admission: Admission, control: Control) -> Run:
        """Have done what comes before the command, then record the intent to start it."""
        grants = admission.command.sandbox
        if grants is not None and (faults := self._desk.sandbox.faults(grants)):
            return await self._closed(run, Stage.FAILED, faults[0])
        if admission.command.before is not None:
            run = await self._desk.save(run)  # staged for good: there is a latch from now on
        fault = await self._steps.run(run, admission.command, "before", control)
        if control.stop is not None:
            return await self._closed(run, Stage.CANCELLED, None)
        if fault is not None:
            return await self._closed(run, Stage.FAILED, fault)
        return await self._intended(run, admission, control)

    async def _moved(self, run: Run, venue: Venue) -> Run:
        """Begin afresh, where the site wants it now; nothing was started yet."""
        with suppress(SekishoError):  # what is left there does no harm
            await at_workplace(run, self._desk.workplace(run).purge, run.job)
        return await self._desk.save(advance(run, Stage.ACCEPTED, venue=venue))

    async def _intended(self, run: Run, admission: Admission, control: Control) -> Run:
        command = admission.command
        now = self._desk.clock.now()
        control.began_at = self._desk.clock.monotonic()
        place = self._desk.place(run)
        run = advance(
            run,
            Stage.SUBMITTED,
            token=self._desk.token(),
            argv=admission.argv,
            environment=tuple(environment(command, place.work_dir).items()),
            limits=command.limits,
            sandbox=command.sandbox,
            venue=command.venue,
            resources=admission.resources,
            started_at=now,
            ticket=None,
            keep_until=now + _longest(admission) + command.retention,
        )
        facts = {
            "command": command.name,
            "argv": run.argv,
            "attempt": run.attempt,
            "confined": command.sandbox is not None,
        }
        run = await self._desk.record(run, (Kind.STARTED, facts))
        control.just_intended = True
        return run

    async def submit(self, run: Run, control: Control) -> Run:
        """Start the command, or find that it was started; either way exactly one start remains.

        What this very process has just recorded as its intent was not submitted by anyone yet.
        """
        fresh, control.just_intended = control.just_intended, False
        ticket = None if fresh else await self._desk.scheduler.find(self._spec(run))
        if ticket is None:
            run = await self._intake.restage(run, control)
            if run.stage.final:
                self.leave(run)
                return run
            try:
                ticket = await self._desk.scheduler.submit(self._spec(run))
            except SekishoError as reason:
                if reason.retryable:
                    raise
                return await self._closed(run, Stage.FAILED, clear_reason(reason))
        control.just_submitted = True
        return advance(run, Stage.RUNNING, ticket=ticket.encode())

    def _spec(self, run: Run) -> LaunchSpec:
        place = self._desk.place(run)
        argv = run.argv
        if run.sandbox is not None:
            argv = self._desk.sandbox.wrap(argv, place.work_dir, run.sandbox)
        return LaunchSpec(
            token=run.token,
            argv=argv,
            env=dict(run.environment),
            work_dir=place.work_dir,
            control_dir=place.control_dir,
            limits=run.limits,
            venue=run.venue,
            resources=run.resources,
        )

    async def watch(self, run: Run, control: Control) -> Run:
        """Look at the command; return what the look says, or wait for a change and return.

        A command that ends within a moment is looked at once, and not remembered as running.
        """
        if control.disowned is not None:
            raise control.disowned
        ticket = Ticket.decode(run.ticket or "")
        if control.just_submitted and control.patient:
            hint = partial(self._desk.scheduler.changed, [ticket], ANNOUNCE_SECONDS)
            await first_of(control, hint)
        look = (await self._desk.scheduler.observe([ticket]))[ticket]
        if control.just_submitted and not isinstance(look, Exited):
            await self._desk.save(run, lasting=False)  # until now it could be found by its token
        control.just_submitted = False
        if isinstance(look, Pending | Running):
            if run.venue.scheduler != LOCAL and run.began_at is None:
                run = await self._queued(run, look, control)
            return await self._wait(run, ticket, look, control)
        if isinstance(look, Exited):
            if look.why in INTERRUPTED and self._may_repeat(run, started=True):
                return self._afresh(run)
            self.leave(run)
            return advance(run, Stage.ENDED, exit=look.exit, why=look.why, part=look.part)
        part = look.part if isinstance(look, Gone) else None
        return await self._without_end(run, look.why, part, started=isinstance(look, Gone))

    async def _queued(self, run: Run, look: Observation, control: Control) -> Run:
        """Let the time in a queue not count: a limit of time begins when the command does."""
        control.began_at = self._desk.clock.monotonic()
        if not isinstance(look, Pending):
            return await self._desk.save(replace(run, began_at=self._desk.clock.now(), held=False))
        if look.held is run.held:
            return run
        tell = log.warning if look.held else log.info
        tell("run_held" if look.held else "run_let_go", job=run.job, epoch=run.epoch)
        return await self._desk.save(replace(run, held=look.held), lasting=False)

    async def _wait(self, run: Run, ticket: Ticket, look: Observation, control: Control) -> Run:
        left = self._time_left(run, control)
        if run.stop is None and (stop := control.stop or _overdue(left)) is not None:
            control.force_at = None
            return await self._desk.save(replace(run, stop=stop))
        if run.stop is not None:
            await self._press(ticket, control)
        elif not control.patient:
            raise NotNow
        untold = isinstance(look, Running) and control.running is None
        timeout = self._patience(run, left, control)
        if untold:
            timeout = ANNOUNCE_SECONDS
        elif isinstance(look, Pending):  # it may have begun since: nothing hints at that for sure
            timeout = min(timeout, control.pending_s)
            control.pending_s = min(2 * control.pending_s, LOOK_SECONDS)
        before = self._desk.clock.monotonic()
        await first_of(control, lambda: self._desk.scheduler.changed([ticket], timeout))
        if untold and self._desk.clock.monotonic() - before > timeout / 2:  # it was no early hint
            control.announce(run)
        return run

    async def _press(self, ticket: Ticket, control: Control) -> None:
        now = self._desk.clock.monotonic()
        if control.force_at is None:
            control.force_at = now + GRACE_SECONDS
        await self._desk.scheduler.cancel(ticket, force=now >= control.force_at)

    def _time_left(self, run: Run, control: Control) -> float:
        """Return how long ``run`` may still go on, in seconds.

        The wall clock counts only for the time before this process of the agent first looked. A
        command that the manifest has lost in the meantime may stay as long as its directory. How
        long an array takes is up to the batch system, which holds each element to its limit.
        """
        if run.resources.elements is not None:
            return math.inf
        clock = self._desk.clock
        now, monotonic = clock.now(), clock.monotonic()
        began = run.began_at or run.started_at or now
        if control.began_at is None:
            control.began_at = monotonic - max(0.0, (now - began).total_seconds())
        command = self._desk.word().command(run)
        limit = command.time_limit if command else (run.keep_until or now) - began
        return limit.total_seconds() - (monotonic - control.began_at)

    def _patience(self, run: Run, left: float, control: Control) -> float:
        if run.stop is None:
            return max(0.01, min(LOOK_SECONDS, left))
        force_at = control.force_at or 0.0
        return max(1.0, force_at - self._desk.clock.monotonic())

    async def _without_end(
        self, run: Run, why: str | None, part: Part | None, *, started: bool
    ) -> Run:
        """Decide on a command of which nothing runs and that left no record of its end."""
        if why not in KILLED and self._may_repeat(run, started=started):
            return self._afresh(run)
        return await self._closed(run, *fate(run, why, part, started=started))

    def _may_repeat(self, run: Run, *, started: bool) -> bool:
        command = self._desk.word().command(run)
        harmless = not started or (command is not None and command.idempotent)
        return harmless and run.stop is None and run.attempt < MAX_ATTEMPTS

    def _afresh(self, run: Run) -> Run:
        self.leave(run)
        fresh = {"token": "", "argv": (), "ticket": None, "began_at": None}
        return advance(run, Stage.ACCEPTED, attempt=run.attempt + 1, **fresh)

    async def end(self, run: Run, control: Control) -> None:
        """Stop the command and return when nothing of it runs, without asking what came of it."""
        ticket = Ticket.decode(run.ticket or "")
        control.force_at = None
        while isinstance((await self._desk.scheduler.observe([ticket]))[ticket], Pending | Running):
            await self._press(ticket, control)
            await self._desk.scheduler.changed([ticket], 1.0)
        self.leave(run)

    async def _closed(self, run: Run, stage: Stage, fault: Fault | None) -> Run:
        run = await self._release.close(run, stage, fault)
        self.leave(run)
        return run


def _longest(admission: Admission) -> timedelta:
    """Return how long what is admitted may take, when its elements come one after the other."""
    return admission.command.time_limit * (admission.resources.elements or 1)


def _overdue(left: float) -> Stop | None:
    return Stop.TIME_LIMIT if left <= 0 else None
