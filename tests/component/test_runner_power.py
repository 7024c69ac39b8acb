"""Inputs that a power cut took away are there again before the command starts.

They are not brought to the disk first where they can be fetched again: nothing was started. Where
something that outlives the cut is to use them they are: a queue, a step, another host.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sekisho.adapters.scheduler_memory import Play
from sekisho.domain.errors import IntegrityError, StorageFull, Unavailable
from sekisho.domain.manifest import Step
from sekisho.domain.resources import Venue
from tests.component.test_runner_crash import Story, a_life, calls_of
from tests.site_world import GOOD, Crash, Effects, World, a_command, a_manifest
from tests.virtual_time import simulate

INPUT = b"seven bytes"
FIRST = Step(argv=("/opt/first",), time_limit=timedelta(seconds=60))


def copied(work: Path) -> None:
    """What the command does: its result is its input, and it changes its input."""
    (work / "result.txt").write_bytes((work / "a.dat").read_bytes())
    (work / "a.dat").write_bytes(b"changed")


COPY = Play(leave=copied)
TEARS: dict[str, Callable[[Path], object]] = {
    "emptied": lambda file: file.write_bytes(b""),
    "zeros": lambda file: file.write_bytes(bytes(len(INPUT))),
    "gone": Path.unlink,
    "whole": lambda _: None,
}


def cut_at(base: Path, when: str, **changes: Any) -> tuple[World, str]:
    """Let the agent die where it starts the command."""
    world = World(base, a_manifest(a_command(**changes)))
    world.plays["solve"] = [COPY]
    job = world.submit(inputs={"a.dat": INPUT})
    world.effects.crash_at = (calls_of("succeeds").index("scheduler.submit") + 1, when)
    with pytest.raises(Crash):
        a_life(world, job, Story())
    assert world.effects.calls[-1] == "scheduler.submit"
    world.effects = Effects()
    return world, job


def input_of(world: World, job: str) -> Path:
    return Path(world.workplace.place(job, 1).work_dir, "a.dat")


@pytest.mark.parametrize("tear", TEARS)
def test_a_command_never_starts_on_inputs_that_a_power_cut_tore(tmp_path: Path, tear: str) -> None:
    """Kills: an intent that is carried out by the next process without a look at the inputs."""
    world, job = cut_at(tmp_path, "before")
    TEARS[tear](input_of(world, job))
    a_life(world, job, Story())
    assert (world.state(job), len(world.scheduler.started)) == ("succeeded", 1)
    assert world.outputs(job)["result.txt"] == INPUT


def test_what_may_have_been_started_is_not_touched(tmp_path: Path) -> None:
    """Kills: inputs that are put right under a command that ran: they may be its outputs."""
    world, job = cut_at(tmp_path, "after")
    a_life(world, job, Story())
    assert (world.state(job), len(world.scheduler.started)) == ("succeeded", 1)
    assert input_of(world, job).read_bytes() == b"changed"
    assert "mailbox.fetch" not in world.effects.calls


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StorageFull("fetch.disk_full"), "site.disk_full"),
        (IntegrityError("chunk.missing"), "chunk.missing"),
    ],
)
def test_inputs_that_cannot_be_had_again_end_the_job_and_nothing_is_started(
    tmp_path: Path, error: Exception, code: str
) -> None:
    world, job = cut_at(tmp_path, "before")
    world.fail("mailbox.fetch", error)
    a_life(world, job, Story())
    assert (world.state(job), world.scheduler.started) == ("failed", [])
    assert world.outcome(job).code == code


def test_inputs_are_looked_at_once_however_often_a_start_fails(tmp_path: Path) -> None:
    """Kills: gigabytes that are read again at every try."""
    world, job = cut_at(tmp_path, "before")
    world.fail("scheduler.submit", Unavailable(), times=5)
    a_life(world, job, Story())
    assert world.state(job) == "succeeded"
    assert world.effects.calls.count("mailbox.fetch") == 1


@dataclass
class Seeing:
    """A lane that notes how long inputs were to last."""

    lane: Any
    asked: list[bool] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.lane, name)

    async def fetch(self, hold: Any, tree: Any, directory: str, *, lasting: bool) -> None:
        self.asked.append(lasting)
        await self.lane.fetch(hold, tree, directory, lasting=lasting)


def seen(base: Path, **changes: Any) -> Seeing:
    world = World(base, a_manifest(a_command(**changes)))
    world.lane = lane = Seeing(world.lane)
    world.plays |= {"solve": [COPY], "first": [Play()]}
    job = world.submit(inputs={"a.dat": INPUT})
    a_life(world, job, Story())
    assert world.state(job) == "succeeded"
    return lane


@pytest.mark.parametrize(
    ("changes", "lasting"),
    [({}, False), ({"before": FIRST}, True), ({"venue": Venue(scheduler="slurm")}, True)],
    ids=["started here", "after a step", "queued"],
)
def test_inputs_are_on_disk_before_what_outlives_a_power_cut_gets_them(
    tmp_path: Path, changes: dict[str, Any], lasting: bool
) -> None:
    assert seen(tmp_path, **changes).asked == [lasting]


def test_a_step_that_is_added_while_a_job_waits_gets_inputs_that_last(tmp_path: Path) -> None:
    world = World(tmp_path, a_manifest(a_command(max_running=1)))
    world.lane = lane = Seeing(world.lane)
    world.plays |= {"solve": [replace(GOOD, seconds=100), COPY], "first": [Play()]}
    first, second = world.submit(), world.submit(inputs={"a.dat": INPUT})

    async def story() -> None:
        async with world.serving():
            await world.until(lambda: world.scheduler.started)
            await world.until(lambda: lane.asked)
            world.edit(before=FIRST)
            await world.ended(first)
            await world.ended(second)

    simulate(world.clock, story)
    assert (world.state(second), lane.asked) == ("succeeded", [False, True])
