"""What an agent remembers: restarts, replays, offers anew, and when it may forget."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import pytest

from sekisho.adapters.mailbox_memory import MemoryMailbox
from sekisho.domain.errors import (
    SekishoError,
    StaleEpoch,
    StorageFull,
    Unavailable,
)
from sekisho.domain.job import JobState
from sekisho.domain.run import Run
from sekisho.domain.sitelog import Kind
from sekisho.site.agent import Agent
from sekisho.site.mailbox import Hold
from tests.site_world import DAY, GOOD, INSTANCE, SITE, World, a_command, a_manifest
from tests.virtual_time import simulate

LONG = replace(GOOD, seconds=500)


def course(world: World, *jobs: str, within_s: float = 1000) -> list[str]:
    async def story() -> list[str]:
        async with world.serving():
            return [await world.ended(job, within_s) for job in jobs]

    return simulate(world.clock, story)


def test_what_runs_is_adopted_by_the_next_agent(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [LONG]
    first, second = world.submit(), world.submit()

    async def begin() -> None:
        async with world.serving():
            await world.until(lambda: world.scheduler.started)

    for _ in range(5):
        simulate(world.clock, begin)
    assert course(world, first, second) == ["succeeded"] * 2
    assert len(world.scheduler.started) == 2
    assert world.scheduler.pressed == []


def offered_again(world: World, job: str) -> None:
    """Put the broker back to before the job was offered, as a restored backup would."""
    kept = world.job(job)
    before = replace(
        kept, state=JobState.QUEUED, result=None, result_tree=None, version=kept.version + 1
    )
    assert world.broker.ports.store.jobs.save(before, expected_version=kept.version)
    world.broker.ports.wakeups.notify("site:one")


@pytest.mark.parametrize("forgotten", [False, True])
def test_an_offer_of_a_job_that_ended_here_is_refused_as_a_replay(
    tmp_path: Path, *, forgotten: bool
) -> None:
    world = World(tmp_path)
    job = world.submit()
    assert course(world, job) == ["succeeded"]
    if forgotten:
        world.journal.forget(job)
    offered_again(world, job)
    assert course(world, job) == ["refused"]
    assert world.outcome(job).code == "job.replayed"
    assert len(world.scheduler.started) == 1
    assert [r.facts["code"] for r in world.logged(Kind.REFUSED)] == ["job.replayed"]


def test_a_refused_replay_leaves_what_is_remembered_of_the_job(tmp_path: Path) -> None:
    world = World(tmp_path)
    job = world.submit()
    course(world, job)
    before = world.run(job)
    offered_again(world, job)
    course(world, job)
    assert world.run(job) == before


def test_a_broker_that_forgot_that_a_job_runs_here_gets_its_result_all_the_same(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [LONG]
    job = world.submit()

    async def story() -> str:
        async with world.serving():
            await world.until(lambda: world.state(job) == "running")
            offered_again(world, job)
            return await world.ended(job)

    assert simulate(world.clock, story) == "succeeded"
    assert (world.job(job).epoch, len(world.scheduler.started)) == (2, 1)
    assert (world.scheduler.pressed, world.logged(Kind.DROPPED)) == ([], [])


def test_an_offer_of_a_job_in_hand_that_stands_no_longer_stops_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [LONG]
    job = world.submit()

    async def story() -> str:
        async with world.serving():
            await world.until(lambda: world.state(job) == "running")
            world.fail("mailbox.accept", StaleEpoch())
            offered_again(world, job)
            return await world.ended(job)

    assert simulate(world.clock, story) == "succeeded"
    assert (world.job(job).epoch, len(world.scheduler.started)) == (3, 1)


@pytest.mark.parametrize("fails", [0, 3, 6])
def test_a_start_is_told_under_the_new_epoch(tmp_path: Path, fails: int) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [LONG]
    job = world.submit()
    world.fail("mailbox.tell", Unavailable(), times=fails)

    async def story() -> str:
        async with world.serving():
            await world.until(lambda: "mailbox.tell" in world.effects.calls, 100)
            offered_again(world, job)
            await world.until(lambda: world.state(job) == "running", 60)
            return await world.ended(job)

    assert simulate(world.clock, story) == "succeeded"
    assert world.job(job).epoch == 2


def test_a_run_that_one_pass_left_is_not_refused_as_a_replay(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [LONG]
    job = world.submit()

    async def story() -> Run | None:
        agent = world.agent()
        await agent.once()
        offered_again(world, job)
        answer = await world.desk().mailbox.poll(free=1, holds=[], cancelling=[], wait_s=0)
        return await agent._runner.take(answer.offers[0], world.run(job))  # noqa: SLF001

    assert simulate(world.clock, story) is None
    assert world.logged(Kind.REFUSED) == []


def test_a_work_directory_is_kept_as_long_as_the_manifest_says_and_then_forgotten(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, a_manifest(a_command(retention=timedelta(days=2))))
    job = world.submit()

    async def story() -> None:
        async with world.serving():
            await world.ended(job)
            await anyio.sleep(2 * DAY)
            assert world.work_dirs(job) != []
            await anyio.sleep(3600 + 2 * 600)

    simulate(world.clock, story)
    assert world.work_dirs(job) == []
    assert (world.run(job), world.journal.knew(job)) == (None, True)


@pytest.mark.parametrize("error", [None, Unavailable("site.work_base")])
def test_what_could_not_be_removed_is_not_forgotten(
    tmp_path: Path, error: SekishoError | None
) -> None:
    world = World(tmp_path)
    job = world.submit("unknown")
    purge, tries = world.workplace.purge, []

    def fail_twice(job: str) -> bool:
        tries.append(job)
        if len(tries) > 2:
            return bool(purge(job))
        if error is not None:
            raise error
        return False

    world.workplace.purge = fail_twice

    async def story() -> None:
        async with world.serving():
            await world.until(lambda: len(tries) == 2, DAY)
            assert world.run(job) is not None
            await world.until(lambda: world.run(job) is None, DAY)

    simulate(world.clock, story)
    assert world.journal.knew(job)


def test_a_job_that_was_given_up_before_its_start_is_still_taken_after_a_month(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    job = world.submit()
    world.fail("mailbox.accept", StaleEpoch())

    async def story() -> str:
        async with world.serving():
            await world.until(lambda: world.logged(Kind.DROPPED))
            world.wishes.is_paused = True
            await anyio.sleep(3 * DAY)
            world.wishes.is_paused = False
            return await world.ended(job)

    assert simulate(world.clock, story) == "succeeded"


def test_a_job_that_was_given_up_before_its_start_is_forgotten_when_nobody_can_offer_it(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    job = world.submit()
    world.fail("mailbox.accept", StaleEpoch(), times=10_000)

    async def story() -> None:
        async with world.serving():
            await world.until(lambda: world.logged(Kind.DROPPED))
            world.wishes.is_paused = True
            world.clock.passed += 59 * DAY
            await anyio.sleep(2 * 3600)
            assert world.run(job) is not None
            world.clock.passed += 2 * DAY
            await anyio.sleep(2 * 3600)

    simulate(world.clock, story)
    assert world.journal.knew(job)


def test_an_offer_that_cannot_be_taken_is_not_asked_for_in_a_loop(tmp_path: Path) -> None:
    """The journal's disk is full, and the broker makes the offer anew whenever it is asked."""
    world = World(tmp_path)
    world.fail("journal.save", StorageFull(), times=1_000_000)
    job = world.submit()

    async def story() -> tuple[int, str]:
        async with world.serving():
            await anyio.sleep(600)
            polls = world.effects.calls.count("mailbox.poll")
            world.mend_line()
            return polls, await world.ended(job)

    polls, state = simulate(world.clock, story)
    assert 10 < polls < 60
    assert state == "succeeded"


def test_a_job_that_is_being_purged_is_not_taken_at_the_same_time(tmp_path: Path) -> None:
    world = World(tmp_path)
    job = world.submit()
    world.fail("mailbox.accept", StaleEpoch())
    agents: list[Agent] = []
    offers: list[int] = []
    purge, knew = world.workplace.purge, world.journal.knew

    async def offer() -> None:
        """Let the agent come by the job once more while its directory is being removed."""
        world.wishes.is_paused = False
        agents[0].wake()
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
        offers.append(world.job(job).epoch)
        assert not taken

    def slow_purge(of: str) -> bool:
        if not offers:
            anyio.from_thread.run(offer)
        return bool(purge(of))

    def look(of: str) -> bool:
        taken.append(of)
        return bool(knew(of))

    taken: list[str] = []

    async def story() -> str:
        async with world.serving() as agent:
            agents.append(agent)
            await world.until(lambda: world.logged(Kind.DROPPED))
            world.wishes.is_paused = True
            world.workplace.purge, world.journal.knew = slow_purge, look
            await world.until(lambda: offers, DAY)
            return await world.ended(job)

    assert simulate(world.clock, story) == "succeeded"
    assert offers == [2]


class StaleTell(MemoryMailbox):
    """The first word of a start takes two seconds to be answered, as told under an old offer."""

    told = 0

    async def tell(self, hold: Hold, news: Any) -> None:
        self.told += 1
        if self.told == 1:
            await anyio.sleep(2)
            raise StaleEpoch
        await super().tell(hold, news)


def test_an_answer_to_a_word_under_the_old_offer_stops_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [LONG]
    world.lane = StaleTell(world.broker, SITE, INSTANCE)
    job = world.submit()

    async def story() -> str:
        async with world.serving():
            await world.until(lambda: world.lane.told, 100)
            offered_again(world, job)
            return await world.ended(job)

    assert simulate(world.clock, story) == "succeeded"
    assert (world.job(job).epoch, world.scheduler.pressed) == (2, [])
