"""What a manifest grants is enforced, or nothing is started."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sekisho.adapters.scheduler_memory import Play
from sekisho.domain.egress import Fault
from sekisho.domain.launch import Sandbox
from sekisho.domain.run import Stage
from sekisho.site.scheduler import LaunchSpec
from tests.site_world import World
from tests.virtual_time import simulate

GRANTS = Sandbox(read=("/opt/solver",))


def a_confined_world(base: Path) -> World:
    world = World(base)
    commands = {n: replace(c, sandbox=GRANTS) for n, c in world.manifest.commands.items()}
    world.manifest = replace(world.manifest, commands=commands)
    return world


def ended(world: World, job: str) -> str:
    async def story() -> str:
        async with world.serving():
            return await world.ended(job)

    return simulate(world.clock, story)


def test_a_confined_command_is_started_through_the_sandbox(tmp_path: Path) -> None:
    world = a_confined_world(tmp_path)
    seen: list[LaunchSpec] = []

    def cast(spec: LaunchSpec) -> Play:
        seen.append(spec)
        return Play(seconds=1)

    world.scheduler.cast = cast
    assert ended(world, world.submit(outputs=[])) == "succeeded"
    (argv, work_dir, grants) = world.sandbox.asked[0]
    assert grants == GRANTS
    assert (seen[0].argv, seen[0].work_dir) == (("/confined", *argv), work_dir)


def test_where_grants_cannot_be_enforced_nothing_is_started(tmp_path: Path) -> None:
    world = a_confined_world(tmp_path)
    world.sandbox.why = [Fault("sandbox.unavailable")]
    job = world.submit(outputs=[])
    assert ended(world, job) == "failed"
    assert world.outcome(job).code == "sandbox.unavailable"
    assert world.scheduler.started == []
    (run,) = world.journal.runs()
    assert run.stage is Stage.FAILED


def test_a_command_without_grants_is_started_as_it_is(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [Play(seconds=1)]
    ended(world, world.submit(outputs=[]))
    assert world.sandbox.asked == []
