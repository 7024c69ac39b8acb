"""The agent: what it takes and when, how it ends, what it forgets, and what cannot stop it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from sekisho.adapters.mailbox_memory import MemoryMailbox
from sekisho.domain.errors import (
    Corrupt,
    SekishoError,
    SyncFailed,
    Unauthenticated,
    Unavailable,
)
from sekisho.domain.job import JobState
from sekisho.domain.run import Stage
from sekisho.site.agent import CRASH_SECONDS, Agent
from sekisho.wire.v1 import PollAnswer
from tests.site_world import DAY, GOOD, INSTANCE, SITE, World, a_command, a_manifest
from tests.virtual_time import simulate
from tests.world import an_id

LONG = replace(GOOD, seconds=500)


def a_bug(world: World) -> ValueError:
    world.clock.crashes_expected = True
    return ValueError("a bug")


def course(world: World, *jobs: str, within_s: float = 1000) -> list[str]:
    async def story() -> list[str]:
        async with world.serving():
            return [await world.ended(job, within_s) for job in jobs]

    return simulate(world.clock, story)


def once(world: World) -> int:
    return simulate(world.clock, lambda: world.agent().once())


# --- taking, pausing, draining ----------------------------------------------------------------


def test_a_site_takes_as_many_jobs_as_it_can_carry_and_then_the_others(tmp_path: Path) -> None:
    world = World(tmp_path, a_manifest(a_command(max_running=9), max_running=3))
    jobs = [world.submit() for _ in range(10)]
    taken: list[int] = []
    world.effects.lost_reply = lambda _: taken.append(
        sum(world.job(job).state in {JobState.ACCEPTED, JobState.RUNNING} for job in jobs)
    )
    assert course(world, *jobs) == ["succeeded"] * 10
    assert max(taken) == 3
    assert world.clock.passed < 60  # no offer was lost on the way: that would cost a minute


def test_an_offer_that_is_under_way_is_not_broken_off_by_a_run_that_ends(tmp_path: Path) -> None:
    world = World(tmp_path, a_manifest(a_command(max_running=9), max_running=3))
    first, second = world.submit(), world.submit()

    async def story() -> list[str]:
        async with world.serving():
            await world.until(lambda: world.effects.calls.count("mailbox.poll") == 2)
            return [await world.ended(first), await world.ended(second)]

    assert simulate(world.clock, story) == ["succeeded"] * 2
    polls = world.effects.calls.count("mailbox.poll")
    assert polls == 2


def test_a_paused_site_takes_nothing_but_finishes_what_it_has(tmp_path: Path) -> None:
    world = World(tmp_path, a_manifest(a_command(max_running=9)))
    world.plays["solve"] = [LONG]
    first = world.submit()

    async def story() -> str:
        async with world.serving() as agent:
            await world.until(lambda: world.scheduler.started)
            world.wishes.is_paused = True
            agent.wake()
            await anyio.sleep(0.1)
            second = world.submit()
            assert await world.ended(first) == "succeeded"
            assert world.state(second) == "queued"
            world.wishes.is_paused = False
            agent.wake()
            return await world.ended(second)

    assert simulate(world.clock, story) == "succeeded"


def test_a_drained_agent_takes_nothing_more_and_ends_when_all_is_returned(tmp_path: Path) -> None:
    world = World(tmp_path, a_manifest(a_command(max_running=9)))
    world.plays["solve"] = [LONG]
    first = world.submit()

    async def story() -> tuple[str, str]:
        agent = world.agent()
        async with anyio.create_task_group() as group:
            group.start_soon(agent.serve)
            await world.until(lambda: world.scheduler.started)
            agent.drain()
            await anyio.sleep(1)
            second = world.submit()
        return world.state(first), world.state(second)

    assert simulate(world.clock, story) == ("succeeded", "queued")
    assert world.clock.passed == pytest.approx(501, abs=2)


def test_an_idle_agent_ends_at_once_when_drained(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def story() -> None:
        agent = world.agent()
        async with anyio.create_task_group() as group:
            group.start_soon(agent.serve)
            await anyio.sleep(1)
            agent.drain()

    simulate(world.clock, story, within_s=5)


def test_an_agent_that_was_drained_before_it_began_ends_at_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    agent = world.agent()
    agent.drain()
    simulate(world.clock, agent.serve, within_s=1)
    assert "mailbox.poll" not in world.effects.calls


def test_an_agent_that_keeps_no_order_purges_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    job = world.submit("unknown")
    agent = Agent(world.desk(), world.wishes, capacity=lambda: 1, alive=lambda: None, tidy=False)

    async def story() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(agent.serve)
            await world.until(lambda: (run := world.run(job)) is not None and run.settled)
            await anyio.sleep(DAY)
            agent.drain()

    simulate(world.clock, story)
    assert "journal.forget" not in world.effects.calls


class StrayCancel(MemoryMailbox):
    """Every answer asks for a job to be stopped that is not in hand."""

    async def poll(self, **asked: Any) -> PollAnswer:
        answer = await super().poll(**asked)
        return PollAnswer(offers=answer.offers, cancel=[an_id("job")])


def test_a_cancel_of_a_job_that_is_not_in_hand_changes_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.lane = StrayCancel(world.broker, SITE, INSTANCE)
    assert course(world, world.submit()) == ["succeeded"]


def test_an_agent_without_a_broker_ends_when_drained(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.cut_line()

    async def story() -> None:
        agent = world.agent()
        async with anyio.create_task_group() as group:
            group.start_soon(agent.serve)
            await anyio.sleep(DAY)
            agent.drain()

    simulate(world.clock, story, within_s=DAY + 5)
    assert DAY / 60 < world.effects.calls.count("mailbox.poll") < DAY / 10


@pytest.mark.parametrize("error", [Unavailable(), Unauthenticated()])
def test_a_poll_that_fails_is_made_again(tmp_path: Path, error: SekishoError) -> None:
    world = World(tmp_path)
    world.fail("mailbox.poll", error, times=5)
    assert course(world, world.submit()) == ["succeeded"]


def test_a_command_that_the_broker_switched_off_is_not_started(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [LONG]
    jobs = [world.submit(), world.submit()]

    async def story() -> list[str]:
        async with world.serving():
            await world.until(lambda: world.scheduler.started)
            world.broker.sites.switch("one", disabled=True, command="solve")
            return [await world.ended(job) for job in jobs]

    assert sorted(simulate(world.clock, story)) == ["refused", "succeeded"]
    assert {world.outcome(job).code for job in jobs} == {None, "command.disabled"}
    assert len(world.scheduler.started) == 1


# --- one pass (--once) --------------------------------------------------------------------------


def test_one_pass_starts_and_later_ones_return(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [LONG]
    job = world.submit()
    assert (once(world), world.clock.passed < 1) == (1, True)
    assert once(world) == 1
    world.clock.passed += 600
    assert once(world) == 0
    assert world.state(job) == "succeeded"


def test_one_pass_hears_that_a_running_job_is_to_be_cancelled(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [replace(LONG, on_term=None)]
    job = world.submit()
    once(world)
    world.cancel(job)
    assert (once(world), world.state(job)) == (0, "cancelled")


def test_one_pass_keeps_a_time_limit(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [replace(LONG, seconds=1e6)]
    job = world.submit()
    once(world)
    world.clock.passed += 3601
    assert once(world) == 0
    assert world.outcome(job).code == "limit.time"


def test_one_pass_without_a_broker_does_its_own_part_and_says_so(tmp_path: Path) -> None:
    world = World(tmp_path)
    job = world.submit()
    once(world)
    world.clock.passed += 600
    world.cut_line()
    with pytest.raises(SekishoError):
        once(world)
    run = world.run(job)
    assert run is not None
    assert run.stage is Stage.COLLECTED
    assert world.clock.passed < 700
    world.mend_line()
    assert (once(world), world.state(job)) == (0, "succeeded")


def test_one_pass_does_not_wait_for_a_slot(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [LONG]
    world.submit(), world.submit()
    assert once(world) == 2
    assert (len(world.scheduler.started), world.clock.passed < 1) == (1, True)


def test_one_pass_does_not_wait_for_a_crash_to_pass(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.fail("scheduler.submit", a_bug(world), times=100)
    world.submit()
    assert (once(world), world.clock.passed < 1) == (1, True)


def test_one_pass_of_a_paused_site_takes_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.wishes.is_paused = True
    job = world.submit()
    assert (once(world), world.state(job)) == (0, "queued")


# --- what cannot stop it, and what must -----------------------------------------------------------


@pytest.mark.parametrize("label", ["scheduler.submit", "workplace.collect", "mailbox.send"])
def test_a_crash_of_one_run_does_not_stop_the_others_nor_itself(tmp_path: Path, label: str) -> None:
    world = World(tmp_path, a_manifest(a_command(), a_command("other")))
    first = world.submit()
    world.fail(label, a_bug(world))

    async def story() -> tuple[str, str]:
        async with world.serving():
            await world.until(lambda: label in world.effects.calls)
            second = world.submit("other")
            state = await world.ended(second)
            assert world.clock.passed < CRASH_SECONDS
            return state, await world.ended(first)

    assert simulate(world.clock, story) == ("succeeded", "succeeded")
    assert len(world.scheduler.started) == 2


def test_a_slot_is_given_back_after_a_crash(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.fail("scheduler.observe", a_bug(world), times=3)
    first, second = world.submit(), world.submit()
    assert course(world, first, second) == ["succeeded"] * 2


def test_a_journal_that_cannot_be_read_after_a_crash_is_read_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    job = world.submit()
    runs: list[str] = []

    def fault(label: str) -> BaseException | None:
        if label == "journal.runs":
            runs.append(label)
            return OSError("too many files") if len(runs) in {2, 3} else None
        bugs = len([c for c in world.effects.calls if c == "workplace.collect"])
        return a_bug(world) if label == "workplace.collect" and bugs == 1 else None

    world.effects.fault = fault
    assert course(world, job) == ["succeeded"]
    assert len(runs) == 4


def test_an_offer_that_trips_over_a_fault_of_ours_does_not_stop_the_agent(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.fail("journal.knew", a_bug(world))
    bad, good = world.submit(), world.submit()
    assert course(world, good, bad) == ["succeeded"] * 2


@pytest.mark.parametrize("label", ["journal.append", "journal.save"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_sync_that_failed_ends_the_agent_at_once(tmp_path: Path, label: str, nth: int) -> None:
    world = World(tmp_path)
    world.submit()
    world.effects.fault = lambda called: (
        SyncFailed(why="EIO")
        if called == label and world.effects.calls.count(label) == nth
        else None
    )
    with pytest.raises(SyncFailed):
        simulate(world.clock, world.agent().serve, within_s=1000)
    assert world.effects.calls[-1] in {label, "mailbox.poll"}


def test_a_sync_that_failed_while_forgetting_ends_the_agent(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.submit("unknown")
    world.fail("journal.forget", SyncFailed(why="EIO"))
    with pytest.raises(SyncFailed):
        simulate(world.clock, world.agent().serve, within_s=1000)


def test_a_damaged_journal_is_not_worked_with(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.fail("journal.runs", Corrupt("site.journal", job="job_x"))
    with pytest.raises(Corrupt):
        simulate(world.clock, world.agent().serve)
    assert "mailbox.poll" not in world.effects.calls
