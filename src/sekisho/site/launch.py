"""From a staged job to its end: the intent, the one start, the watch, the stop.

P3: a start is recorded with its token before it can happen, and whatever is started twice by a
crash meets the run latch. P9: a run that was asked to stop is `cancelled` only when it is seen dead
without having succeeded. What was started and has vanished is `lost`: never guessed, never re-run,
unless the manifest calls the command idempotent.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime
from typing import Final

import anyio

from sekisho.domain.egress import Fault, clear_reason
from sekisho.domain.errors import Refused, SekishoError
from sekisho.domain.manifest import environment
from sekisho.domain.run import Run, Stage, Stop, advance
from sekisho.domain.sitelog import Kind
from sekisho.site.desk import Control, Desk, first_of
from sekisho.site.intake import Intake
from sekisho.site.outcome import FATE_UNKNOWN, LIMIT_TIME
from sekisho.site.release import Release
from sekisho.site.scheduler import (
    Exited,
    Gone,
    LaunchLimits,
    LaunchSpec,
    NotStarted,
    Observation,
    Pending,
    Running,
    Ticket,
)

GRACE_SECONDS: Final = 10.0
MAX_ATTEMPTS: Final = 3
#: How long a look at a running job is trusted when nothing hints at a change.
LOOK_SECONDS: Final = 30.0
#: A job that ends within this time is reported as started and ended in one message.
ANNOUNCE_SECONDS: Final = 0.05


class NotNow(SekishoError):
    """A run waits for something that takes long, and nobody wants to wait for it now."""

    code = "run.not_now"


class Launch:
    """The steps around the command itself."""

    def __init__(self, desk: Desk, intake: Intake, release: Release) -> None:
        self._desk = desk
        self._intake = intake
        self._release = release
        self._busy: Counter[str] = Counter()
        self._freed = anyio.Event()

    def adopt(self, run: Run) -> None:
        """Count a run that an earlier process of the agent started."""
        if run.stage in (Stage.SUBMITTED, Stage.RUNNING):
            self._busy[run.command] += 1

    def leave(self, run: Run) -> None:
        """Give back the place that ``run`` had among the running ones of its command."""
        self._busy[run.command] -= 1
        self._freed.set()
        self._freed = anyio.Event()

    async def intend(self, run: Run, control: Control) -> Run:
        """Record that the command is going to be started, once its turn has come."""
        while True:
            if control.stop is not None:
                return await self._release.close(run, Stage.CANCELLED, None)
            try:
                admission = self._intake.admission(run)
            except Refused as reason:  # the site's word has changed since the job was accepted
                return await self._release.close(run, Stage.REFUSED, clear_reason(reason))
            if self._busy[run.command] < admission.command.max_running:
                break
            if not control.patient:
                raise NotNow
            await first_of(control, self._freed.wait)
        self._busy[run.command] += 1
        command = admission.command
        now = self._desk.clock.now()
        place = self._desk.workplace.place(run.job, run.attempt)
        run = advance(
            run,
            Stage.SUBMITTED,
            token=self._desk.token(),
            argv=admission.argv,
            environment=tuple(environment(command, place.work_dir).items()),
            started_at=now,
            ticket=None,
            keep_until=now + command.time_limit + command.retention,
        )
        await self._desk.save(run)
        await self._desk.log(run, (Kind.STARTED, {"command": command.name, "argv": run.argv}))
        return run

    async def submit(self, run: Run, _: Control) -> Run:
        """Start the command, or find that it was started; either way exactly one start remains."""
        ticket = await self._desk.scheduler.find(run.token)
        if ticket is None:
            try:
                ticket = await self._desk.scheduler.submit(self._spec(run))
            except SekishoError as reason:
                if reason.retryable:
                    raise
                return await self._unable(run, clear_reason(reason))
        return advance(run, Stage.RUNNING, ticket=ticket.encode())

    def _spec(self, run: Run) -> LaunchSpec:
        place = self._desk.workplace.place(run.job, run.attempt)
        return LaunchSpec(
            token=run.token,
            argv=run.argv,
            env=dict(run.environment),
            work_dir=place.work_dir,
            control_dir=place.control_dir,
            limits=LaunchLimits(),
        )

    async def watch(self, run: Run, control: Control) -> Run:
        """Look at the command; return what the look says, or wait for a change and return."""
        ticket = Ticket.decode(run.ticket or "")
        look = (await self._desk.scheduler.observe([ticket]))[ticket]
        match look:
            case Pending() | Running():
                return await self._wait(run, ticket, look, control)
            case Exited(end):
                self.leave(run)
                return advance(run, Stage.ENDED, exit=end)
            case NotStarted():
                return self._again(run)
            case Gone():
                return await self._gone(run)

    async def _wait(self, run: Run, ticket: Ticket, look: Observation, control: Control) -> Run:
        limit = self._limit(run)
        if run.stop is None and (stop := control.stop or self._overdue(limit)) is not None:
            control.force_at = None
            return await self._desk.save(replace(run, stop=stop))
        if run.stop is not None:
            await self._press(ticket, control)
        elif not control.patient:
            raise NotNow
        if isinstance(look, Running) and not control.started.is_set():
            timeout = ANNOUNCE_SECONDS
        else:
            timeout = self._patience(limit, control)
        before = self._desk.clock.monotonic()
        await first_of(control, lambda: self._desk.scheduler.changed([ticket], timeout))
        if self._desk.clock.monotonic() - before >= timeout:
            control.started.set()
        return run

    async def _press(self, ticket: Ticket, control: Control) -> None:
        now = self._desk.clock.monotonic()
        if control.force_at is None:
            control.force_at = now + GRACE_SECONDS
        await self._desk.scheduler.cancel(ticket, force=now >= control.force_at)

    def _limit(self, run: Run) -> datetime | None:
        command = self._desk.word().command(run)
        if command is None or run.started_at is None:
            return None
        return run.started_at + command.time_limit

    def _overdue(self, limit: datetime | None) -> Stop | None:
        return Stop.TIME_LIMIT if limit and self._desk.clock.now() >= limit else None

    def _patience(self, limit: datetime | None, control: Control) -> float:
        waits = [LOOK_SECONDS]
        if limit is not None:
            waits.append((limit - self._desk.clock.now()).total_seconds())
        if control.force_at is not None:
            waits.append(max(1.0, control.force_at - self._desk.clock.monotonic()))
        return max(0.01, min(waits))

    async def _gone(self, run: Run) -> Run:
        if run.stop is Stop.CANCEL:
            return await self._closed(run, Stage.CANCELLED, None)
        if run.stop is Stop.TIME_LIMIT:
            return await self._unable(run, LIMIT_TIME)
        command = self._desk.word().command(run)
        if command is not None and command.idempotent and run.attempt < MAX_ATTEMPTS:
            return self._again(run)
        return await self._closed(run, Stage.LOST, FATE_UNKNOWN)

    async def end(self, run: Run, control: Control) -> Run:
        """Stop what runs and return when nothing of it does, without asking what came of it."""
        if run.stage is Stage.SUBMITTED:
            run = await self.submit(run, control)
        if run.stage is not Stage.RUNNING:
            return run
        ticket = Ticket.decode(run.ticket or "")
        while True:
            look = (await self._desk.scheduler.observe([ticket]))[ticket]
            if not isinstance(look, Pending | Running):
                self.leave(run)
                return run
            await self._press(ticket, control)
            await self._desk.scheduler.changed([ticket], 1.0)

    def _again(self, run: Run) -> Run:
        self.leave(run)
        return advance(run, Stage.ACCEPTED, attempt=run.attempt + 1, token="", ticket=None)

    async def _unable(self, run: Run, fault: Fault) -> Run:
        return await self._closed(run, Stage.FAILED, fault)

    async def _closed(self, run: Run, stage: Stage, fault: Fault | None) -> Run:
        self.leave(run)
        return await self._release.close(run, stage, fault)
