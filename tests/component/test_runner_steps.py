"""What is done before and after a command: once each, and its failure is the job's."""

from __future__ import annotations

import itertools
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread

from sekisho.adapters.scheduler_memory import Play
from sekisho.domain.manifest import Step
from sekisho.domain.resources import Venue
from sekisho.domain.sitelog import Kind
from sekisho.site.desk import FAR_THREADS
from tests.component.test_runner_crash import Story, a_life
from tests.site_world import GOOD, RESULT, Crash, Effects, World, a_command, a_manifest, leaves
from tests.virtual_time import simulate

FIRST = Step(argv=("/opt/first", "--mesh"), time_limit=timedelta(seconds=60))
LAST = Step(argv=("/opt/last",), time_limit=timedelta(seconds=60))


def a_world(base: Path, **plays: Play) -> World:
    base.mkdir(exist_ok=True)
    world = World(base, a_manifest(a_command(before=FIRST, after=LAST)))
    usual = {"first": Play(seconds=5), "solve": GOOD, "last": Play(seconds=5)}
    world.plays = {name: [play] for name, play in (usual | plays).items()}
    return world


def carried(world: World, *, outputs: tuple[str, ...] = ("result.txt",)) -> tuple[str, Any]:
    job = world.submit(outputs=outputs)
    a_life(world, job, Story())
    return job, world.outcome(job)


def started(world: World, job: str) -> list[str]:
    """Return what was started, in order: the steps by their names, the command as `run`."""
    ours = f"{job}-1-"
    return [t.removeprefix(ours) if t.startswith(ours) else "run" for t in world.scheduler.started]


def test_steps_are_done_around_the_command_once_each(tmp_path: Path) -> None:
    world = a_world(tmp_path, solve=replace(GOOD, leave=leaves()))
    world.plays["last"] = [Play(leave=leaves(result_txt=RESULT))]
    job, outcome = carried(world)
    assert started(world, job) == ["before", "run", "after"]
    assert (outcome.verdict, world.outputs(job)["result.txt"]) == ("succeeded", RESULT)


def test_when_the_first_step_fails_the_command_is_never_started(tmp_path: Path) -> None:
    world = a_world(tmp_path, first=Play(code=3))
    job, outcome = carried(world)
    assert started(world, job) == ["before"]
    assert (outcome.code, outcome.params) == ("step.failed", {"step": "before", "exit_code": 3})
    assert world.state(job) == "failed"
    assert not world.logged(Kind.STARTED)


def test_when_the_last_step_fails_the_job_has_failed(tmp_path: Path) -> None:
    world = a_world(tmp_path, last=Play(code=4))
    job, outcome = carried(world)
    assert (outcome.code, outcome.params) == ("step.failed", {"step": "after", "exit_code": 4})
    assert (world.state(job), outcome.exit_code) == ("failed", 0)


def test_after_a_command_that_failed_nothing_is_done(tmp_path: Path) -> None:
    world = a_world(tmp_path, solve=replace(GOOD, code=1))
    job, outcome = carried(world)
    assert started(world, job) == ["before", "run"]
    assert outcome.exit_code == 1


@pytest.mark.parametrize(("name", "step"), [("first", "before"), ("last", "after")])
def test_a_step_that_takes_too_long_is_stopped(tmp_path: Path, name: str, step: str) -> None:
    world = a_world(tmp_path, **{name: Play(seconds=1e6, on_term=None)})
    _, outcome = carried(world)
    assert (outcome.code, outcome.params) == ("step.late", {"step": step})
    assert [force for _, force, _ in world.scheduler.pressed][-1]


def test_a_step_without_a_record_of_its_end_is_not_taken_for_done(tmp_path: Path) -> None:
    world = a_world(tmp_path, first=Play(fate="vanishes"))
    job, outcome = carried(world)
    assert (outcome.code, started(world, job)) == ("step.lost", ["before"])


def test_a_cancel_during_the_first_step_ends_it_and_the_job(tmp_path: Path) -> None:
    world = a_world(tmp_path, first=Play(seconds=1e6))
    job = world.submit()
    a_life(world, job, Story(cancel=True))
    assert (world.state(job), started(world, job)) == ("cancelled", ["before"])


def test_wherever_the_agent_dies_each_step_is_started_once_at_most(tmp_path: Path) -> None:
    undisturbed = a_world(tmp_path / "undisturbed")
    carried(undisturbed)
    calls = undisturbed.effects.calls
    for number, when in itertools.product(range(1, len(calls) + 1), ("before", "after")):
        world = a_world(tmp_path / f"{number}-{when}")
        world.effects.crash_at = (number, when)
        job = world.submit()
        with suppress(Crash):  # the last calls may come after the end
            a_life(world, job, Story())
        world.effects = Effects()
        a_life(world, job, Story())
        where = f"{when} {number} {calls[number - 1]}"
        assert world.state(job) == "succeeded", where
        assert started(world, job) == ["before", "run", "after"], where


def test_a_command_that_moved_to_another_host_before_its_start_is_staged_there(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, a_manifest(a_command(max_running=1)))
    world.plays["solve"] = [replace(GOOD, seconds=100)]
    asked: Counter[str] = Counter()
    desk = world.desk

    def counting() -> Any:
        made = desk()
        return replace(
            made, workplaces=lambda host: (asked.update([host]), made.workplaces(host))[1]
        )

    world.desk = counting  # type: ignore[method-assign]
    first, second = world.submit(), world.submit(inputs={"a.dat": b"1"})

    async def story() -> None:
        FAR_THREADS.set(to_thread.current_default_thread_limiter())  # the one that time waits for
        async with world.serving():
            await world.until(lambda: world.scheduler.started)
            await world.until(lambda: world.effects.calls.count("workplace.fill") == 1)
            assert set(asked) == {"local"}
            world.edit(venue=Venue(host="ssh:far"))
            await world.ended(first)
            await world.ended(second)

    simulate(world.clock, story)
    assert world.state(second) == "succeeded"
    assert asked["ssh:far"]
