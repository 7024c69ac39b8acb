"""Runs that wait: in a queue, for a licence; and what a scheduler may say of their ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from sekisho.adapters.scheduler_memory import Play
from sekisho.domain.errors import SekishoError, Unavailable
from sekisho.domain.parameter import Integer
from sekisho.domain.resources import Bound, ResourceRule, Venue
from sekisho.site.desk import Desk
from sekisho.site.host import Answer
from sekisho.site.licence import HOLD_SECONDS
from tests.site_world import DAY, GOOD, MINUTE, World, a_command, a_manifest
from tests.virtual_time import simulate

BATCH = Venue(scheduler="slurm")


def ended(world: World, job: str, within_s: float = 30 * DAY) -> str:
    async def story() -> str:
        async with world.serving():
            return await world.ended(job, within_s)

    return simulate(world.clock, story)


def test_days_in_a_queue_are_no_time_of_the_command(tmp_path: Path) -> None:
    world = World(tmp_path, a_manifest(a_command(venue=BATCH, time_limit=timedelta(hours=1))))
    world.plays["solve"] = [replace(GOOD, pending_s=3 * DAY, seconds=50 * MINUTE)]
    job = world.submit()
    assert ended(world, job) == "succeeded"


def test_the_limit_of_time_counts_from_the_start_also_for_the_next_agent(tmp_path: Path) -> None:
    world = World(tmp_path, a_manifest(a_command(venue=BATCH, time_limit=timedelta(hours=1))))
    world.plays["solve"] = [replace(GOOD, pending_s=DAY, seconds=DAY)]
    job = world.submit()

    async def first() -> None:
        async with world.serving():
            await world.until(lambda: world.state(job) == "running", 2 * DAY)
            await anyio.sleep(40 * MINUTE)

    simulate(world.clock, first)
    began = world.clock.monotonic()
    assert ended(world, job, 120 * MINUTE) == "failed"
    assert world.outcome(job).code == "limit.time"
    assert world.clock.monotonic() - began < 30 * MINUTE


def test_a_waiting_job_is_accepted_not_running(tmp_path: Path) -> None:
    world = World(tmp_path, a_manifest(a_command(venue=BATCH)))
    world.plays["solve"] = [replace(GOOD, pending_s=DAY)]
    job = world.submit()

    async def story() -> str:
        async with world.serving():
            await anyio.sleep(DAY / 2)
            return world.state(job)

    assert simulate(world.clock, story) == "accepted"


@pytest.mark.parametrize("why", ["limit.time", "limit.memory", "scheduler.cancelled"])
@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize("fate", ["vanishes", "never starts"])
def test_a_known_killer_is_named_and_nothing_is_tried_again(
    tmp_path: Path, why: str, fate: Any, *, idempotent: bool
) -> None:
    world = World(tmp_path, a_manifest(a_command(venue=BATCH, idempotent=idempotent)))
    world.plays["solve"] = [Play(fate=fate, why=why)]
    job = world.submit()
    assert (ended(world, job), world.outcome(job).code) == ("failed", why)
    assert len(world.scheduler.started) == (1 if fate == "vanishes" else 0)


@pytest.mark.parametrize(
    ("why", "state", "code"),
    [
        ("scheduler.preempted", "failed", "scheduler.preempted"),
        ("scheduler.node_failed", "lost", "site.fate_unknown"),
    ],
)
def test_what_the_site_took_away_is_not_run_again_unless_it_does_no_harm(
    tmp_path: Path, why: str, state: str, code: str
) -> None:
    world = World(tmp_path, a_manifest(a_command(venue=BATCH)))
    world.plays["solve"] = [Play(fate="vanishes", why=why), GOOD]
    job = world.submit()
    assert (ended(world, job), world.outcome(job).code) == (state, code)
    world.edit(idempotent=True)
    world.plays["solve"] = [Play(fate="vanishes", why=why), GOOD]
    job = world.submit()
    assert ended(world, job) == "succeeded"


@pytest.mark.parametrize("why", ["scheduler.preempted", "scheduler.node_failed"])
def test_what_had_time_to_say_good_bye_is_treated_the_same(tmp_path: Path, why: str) -> None:
    """Batch systems send TERM first: then there is an exit record, and it means no more."""
    world = World(tmp_path, a_manifest(a_command(venue=BATCH)))
    world.plays["solve"] = [replace(GOOD, code=143, why=why), GOOD]
    job = world.submit()
    assert (ended(world, job), world.outcome(job).code) == ("failed", why)
    world.edit(idempotent=True)
    world.plays["solve"] = [replace(GOOD, code=143, why=why), GOOD]
    job = world.submit()
    assert ended(world, job) == "succeeded"
    world.plays["solve"] = [replace(GOOD, code=143), GOOD]
    job = world.submit()
    assert (ended(world, job), world.outcome(job).exit_code) == ("failed", 143)


@pytest.mark.parametrize(("code", "told"), [(137, "limit.memory"), (0, None)])
def test_an_exit_code_keeps_its_meaning_beside_a_reason(
    tmp_path: Path, code: int, told: str | None
) -> None:
    world = World(tmp_path, a_manifest(a_command(venue=BATCH)))
    world.plays["solve"] = [replace(GOOD, code=code, why="limit.memory")]
    job = world.submit()
    state = ended(world, job)
    assert (state, world.outcome(job).exit_code) == ("failed" if code else "succeeded", code)
    assert world.outcome(job).code == told or code == 0


# ------------------------------------------------------------------- licences


@dataclass
class Probe:
    """A host that has so many licences; counts who asks."""

    clock: Any
    free_from_s: float = 0.0
    fault: SekishoError | None = None
    status: int = 1  #: while there is none
    asked: list[float] = field(default_factory=list)

    async def run(
        self,
        argv: tuple[str, ...],
        *,
        stdin: bytes = b"",
        cwd: str = "/",
        env: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
    ) -> Answer:
        del stdin, cwd, env, timeout_s
        assert argv == ("/opt/probe", "solver")
        self.asked.append(self.clock.monotonic())
        if self.fault is not None and self.clock.monotonic() < self.free_from_s:
            raise self.fault
        return Answer(0 if self.clock.monotonic() >= self.free_from_s else self.status, b"", b"")


class LicenceWorld(World):
    def __init__(self, base: Path) -> None:
        command = a_command(licence=("/opt/probe", "solver"), max_running=4)
        super().__init__(base, a_manifest(command))
        self.probe = Probe(self.clock)

    def desk(self) -> Desk:
        return replace(super().desk(), hosts=lambda _: self.probe)


@pytest.mark.parametrize(
    ("fault", "status"),
    [(None, 1), (None, 2), (None, 127), (None, -9), (Unavailable("host.timeout"), 0)],
)
def test_without_a_licence_a_job_waits_at_the_site_and_does_not_fail(
    tmp_path: Path, fault: SekishoError | None, status: int
) -> None:
    """Kills: a start without a licence when the probe is not there, or was killed."""
    world = LicenceWorld(tmp_path)
    world.probe.free_from_s, world.probe.fault = 10 * MINUTE, fault
    world.probe.status = status
    job = world.submit()

    async def story() -> None:
        async with world.serving():
            await anyio.sleep(9 * MINUTE)
            assert world.state(job) == "accepted"
            assert world.scheduler.started == []
            assert await world.ended(job) == "succeeded"

    simulate(world.clock, story)
    assert len(world.probe.asked) > 10


def test_one_good_answer_starts_one_job(tmp_path: Path) -> None:
    world = LicenceWorld(tmp_path)
    jobs = [world.submit() for _ in range(4)]

    async def story() -> None:
        async with world.serving():
            for job in jobs:
                assert await world.ended(job) == "succeeded"

    simulate(world.clock, story)
    waits = [b - a for a, b in zip(world.probe.asked, world.probe.asked[1:], strict=False)]
    assert all(wait >= HOLD_SECONDS for wait in waits)


def test_a_cancel_ends_the_wait_for_a_licence(tmp_path: Path) -> None:
    world = LicenceWorld(tmp_path)
    world.probe.free_from_s = 30 * DAY
    job = world.submit()

    async def story() -> str:
        async with world.serving():
            await anyio.sleep(MINUTE)
            world.cancel(job)
            return await world.ended(job)

    assert simulate(world.clock, story) == "cancelled"


# ------------------------------------------------------------------- resources


def test_what_a_request_asks_for_is_journaled_with_the_intent(tmp_path: Path) -> None:
    rule = ResourceRule(cpus=Bound(parameter="n", most=8), queue="normal")
    command = a_command(
        venue=BATCH, resources=rule, parameters={"n": Integer(minimum=1, maximum=99)}
    )
    world = World(tmp_path, a_manifest(command))
    job = world.submit(n=8)
    too_much = world.submit(n=9)
    assert ended(world, job) == "succeeded"
    run = world.run(job)
    assert run is not None
    assert (run.venue, run.resources.cpus, run.resources.queue) == (BATCH, 8, "normal")
    assert run.resources.wall_time == 3600 + 120
    assert ended(world, too_much) == "refused"
    assert world.outcome(too_much).code == "parameter.invalid"
