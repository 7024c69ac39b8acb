"""A site that two lanes serve at once: what one has in hand leaves less room to the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio

from sekisho.adapters.slots_memory import MemorySlots
from sekisho.domain.manifest import Manifest
from sekisho.site.slots import IN_HAND
from sekisho.wire.v1 import PollAnswer
from tests.site_world import GOOD, World, a_command, a_manifest
from tests.virtual_time import simulate

MINUTE = 60.0


def two_lanes(base: Path, manifest: Manifest) -> tuple[World, MemorySlots]:
    """Return a world, and the slots of another lane of its site."""
    table: set[tuple[str, str, int]] = set()
    world = World(base, manifest)
    world.make_slots = lambda: MemorySlots(table)
    return world, MemorySlots(table)


def test_a_full_site_takes_nothing_until_the_other_lane_has_room(tmp_path: Path) -> None:
    world, other = two_lanes(tmp_path, a_manifest(a_command(max_running=9), max_running=2))
    for job in ("theirs", "too"):
        assert other.take(IN_HAND, job)
    job = world.submit()

    async def story() -> str:
        async with world.serving():
            await anyio.sleep(200)
            assert world.state(job) == "queued"
            other.leave(IN_HAND, "too")
            return await world.ended(job)

    assert simulate(world.clock, story) == "succeeded"
    assert world.clock.passed < 215  # nobody told it: it looked


def test_only_as_many_are_asked_for_as_the_other_lane_leaves(tmp_path: Path) -> None:
    world, other = two_lanes(tmp_path, a_manifest(a_command(max_running=9), max_running=3))
    world.plays["solve"] = [replace(GOOD, seconds=1000)]
    assert other.take(IN_HAND, "theirs")
    jobs = [world.submit() for _ in range(4)]

    async def story() -> list[str]:
        async with world.serving():
            await world.until(lambda: len(world.scheduler.started) == 2)
            await anyio.sleep(300)
            return [world.state(job) for job in jobs]

    states = simulate(world.clock, story)
    assert sorted(states) == ["queued", "queued", "running", "running"]
    assert not other.take(IN_HAND, "one more", 3)  # and the other lane sees ours


def test_an_offer_that_finds_no_room_any_more_is_left_and_comes_again(tmp_path: Path) -> None:
    world, other = two_lanes(tmp_path, a_manifest(a_command(max_running=9), max_running=1))
    lane = world.lane
    poll = lane.poll

    async def outrun(**asked: Any) -> PollAnswer:
        answer: PollAnswer = await poll(**asked)
        if answer.offers:
            lane.poll = poll
            assert other.take(IN_HAND, "theirs", 1)
        return answer

    lane.poll = outrun
    job = world.submit()

    async def story() -> str:
        async with world.serving():
            await anyio.sleep(MINUTE)
            assert not world.scheduler.started
            other.leave(IN_HAND, "theirs")
            return await world.ended(job)

    assert simulate(world.clock, story) == "succeeded"


def test_a_command_waits_while_the_other_lane_runs_as_many_as_may(tmp_path: Path) -> None:
    world, other = two_lanes(tmp_path, a_manifest(a_command(max_running=1)))
    assert other.take("solve", "theirs")
    job = world.submit()

    async def story() -> str:
        async with world.serving():
            await anyio.sleep(MINUTE)
            assert world.state(job) == "accepted"
            assert not world.scheduler.started
            other.leave("solve", "theirs")
            return await world.ended(job)

    assert simulate(world.clock, story) == "succeeded"
    assert other.others("solve") == 0  # and gave its slot back


def test_what_an_agent_adopts_counts_for_the_other_lane_at_once(tmp_path: Path) -> None:
    world, other = two_lanes(tmp_path, a_manifest(a_command(max_running=2), max_running=2))
    world.plays["solve"] = [replace(GOOD, seconds=1000)]
    world.submit()

    async def story() -> None:
        async with world.serving():
            await world.until(lambda: world.scheduler.started)
        table: set[tuple[str, str, int]] = set()
        world.make_slots = lambda: MemorySlots(table)
        late = MemorySlots(table)
        async with world.serving():
            await world.until(lambda: late.others("solve"))
            assert (late.others(IN_HAND), late.others("solve")) == (1, 1)

    simulate(world.clock, story)
    assert other.others(IN_HAND) == 1  # of the agent that was killed: memory forgets nobody
