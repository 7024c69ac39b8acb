"""Trying a batch system with a harmless job: what is submitted, what comes back, what is seen.

It goes the way of every job, so that what works here works there. A job that does not start while
we wait is taken back.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

import anyio

from sekisho.adapters.schedulers.batch import BatchScheduler
from sekisho.domain.errors import SekishoError
from sekisho.domain.ids import numbered_job
from sekisho.domain.manifest import Command
from sekisho.domain.resources import LOCAL, granted
from sekisho.site.check import Finding, fault, found, ok
from sekisho.site.scheduler import Exited, LaunchSpec, Observation, Pending, Running, Ticket
from sekisho.site.workplace import Place, Workplace

#: How long the trial may wait and run before it is taken back.
TRIAL_SECONDS: Final = 60.0
_WALL_SECONDS: Final = 60
_TRIES: Final = 3
_ELEMENTS: Final = 2  #: of the trial of a command that is run as an array
_WORDS: Final = {"Pending": "waiting", "Running": "running", "Exited": "ended", "Gone": "gone"}


@dataclass(slots=True)
class _Trial:
    reference: str
    seen: list[Observation] = field(default_factory=list)

    @property
    def words(self) -> str:
        kinds = [type(each).__name__ for each in self.seen]
        return ", ".join(_WORDS.get(kind, "not started") for kind in dict.fromkeys(kinds))


def probe_batch(
    command: Command, scheduler: BatchScheduler, workplace: Workplace
) -> Iterator[Finding]:
    """Submit a harmless job as ``command`` would be, in directories of ``workplace``."""
    venue = command.venue
    name = venue.scheduler if venue.host == LOCAL else f"{venue.host}: {venue.scheduler}"
    job = numbered_job(secrets.randbits(80))  # of the year 1970: nobody's latest
    try:
        spec = _spec(command, workplace.prepare(job, 1))
        yield ok("batch", f"{name}: {' '.join(scheduler.submission_of(spec))}")
        yield _judged(name, anyio.run(_tried, scheduler, spec))
    except SekishoError as error:
        yield fault("batch", error)
    finally:
        with suppress(SekishoError):
            workplace.purge(job)


def _spec(command: Command, place: Place) -> LaunchSpec:
    resources = granted(command.resources, {}, command.time_limit)
    elements = None if command.resources.array is None else _ELEMENTS
    return LaunchSpec(
        token=secrets.token_hex(16),
        argv=("/bin/true",),
        env={},
        work_dir=place.work_dir,
        control_dir=place.control_dir,
        venue=command.venue,
        resources=replace(resources, wall_time=_WALL_SECONDS, elements=elements),
    )


async def _submitted(scheduler: BatchScheduler, spec: LaunchSpec) -> Ticket:
    """Submit as an agent does: look for the job when it is not known whether there is one."""
    for _ in range(_TRIES):
        try:
            return await scheduler.find(spec) or await scheduler.submit(spec)
        except SekishoError as error:
            if error.code != "scheduler.unsure":
                raise
            await anyio.sleep(1.0)
    return await scheduler.submit(spec)


async def _tried(scheduler: BatchScheduler, spec: LaunchSpec) -> _Trial:
    ticket = await _submitted(scheduler, spec)
    trial = _Trial(ticket.reference)
    with anyio.move_on_after(TRIAL_SECONDS):
        while True:
            trial.seen.append((await scheduler.observe([ticket]))[ticket])
            if not isinstance(trial.seen[-1], Pending | Running):
                return trial
            await scheduler.changed([ticket], TRIAL_SECONDS)
    await scheduler.cancel(ticket, force=True)
    return trial


def _judged(name: str, trial: _Trial) -> Finding:
    facts = {"scheduler": name, "id": trial.reference, "states": trial.words}
    last = trial.seen[-1] if trial.seen else None
    if isinstance(last, Exited) and last.exit.code == 0:
        return ok("batch", f"{name}: {trial.reference}: {trial.words}")
    if isinstance(last, Pending | Running) or last is None:
        return found("batch", "check.batch_waits", seconds=round(TRIAL_SECONDS), **facts)
    return found("batch", "check.batch_failed", **facts)
