"""What a site has done before and after a command, on the host where the command runs.

P3 holds for a step as for the command: it has a latch and an exit record of its own, so that it is
started once, whatever crashes; its end is believed only from that record.
"""

from __future__ import annotations

from typing import Final, Literal

from sekisho.domain.egress import Fault
from sekisho.domain.manifest import Command, Step, environment
from sekisho.domain.resources import Venue
from sekisho.domain.run import Run
from sekisho.site.desk import Control, Desk, NotNow, first_of
from sekisho.site.scheduler import Exited, LaunchSpec, Observation, Pending, Running, Ticket

StepName = Literal["before", "after"]
GRACE_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 30.0


class Steps:
    """Runs steps, each once for an attempt."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def run(
        self, run: Run, command: Command, name: StepName, control: Control
    ) -> Fault | None:
        """Have the step ``name`` done, or find that it was; return what went wrong.

        Raise NotNow when it is under way and nobody wants to wait. A stop ends it.
        """
        step = command.before if name == "before" else command.after
        if step is None:
            return None
        spec = self._spec(run, command, step, name)
        scheduler = self._desk.scheduler
        ticket = await scheduler.find(spec) or await scheduler.submit(spec)
        late_at = self._desk.clock.monotonic() + step.time_limit.total_seconds()
        while isinstance(seen := (await scheduler.observe([ticket]))[ticket], Pending | Running):
            await self._wait(ticket, late_at, control)
        return self._judged(seen, name, late=self._desk.clock.monotonic() >= late_at)

    async def _wait(self, ticket: Ticket, late_at: float, control: Control) -> None:
        left = late_at - self._desk.clock.monotonic()
        if left <= 0 or control.stop is not None:
            force = left < -GRACE_SECONDS or control.stop is not None
            await self._desk.scheduler.cancel(ticket, force=force)
            await self._desk.scheduler.changed([ticket], 1.0)
            return
        if not control.patient:
            raise NotNow
        patience = min(left, LOOK_SECONDS)
        await first_of(control, lambda: self._desk.scheduler.changed([ticket], patience))

    def _judged(self, seen: Observation, name: StepName, *, late: bool) -> Fault | None:
        if isinstance(seen, Exited) and seen.exit.code == 0:
            return None
        if isinstance(seen, Exited) and not late:
            return Fault("step.failed", (("exit_code", seen.exit.code), ("step", name)))
        return Fault("step.late" if late else "step.lost", (("step", name),))

    def _spec(self, run: Run, command: Command, step: Step, name: StepName) -> LaunchSpec:
        place, argv = self._desk.place(run), step.argv
        if command.sandbox is not None:
            argv = self._desk.sandbox.wrap(argv, place.work_dir, command.sandbox)
        return LaunchSpec(
            token=f"{run.job}-{run.attempt}-{name}",
            argv=argv,
            env=environment(command, place.work_dir),
            work_dir=place.work_dir,
            control_dir=place.step_dir(name),
            limits=command.limits,
            venue=Venue(host=run.venue.host),
        )
