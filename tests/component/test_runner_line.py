"""The line to the broker: cut, slow, or with somebody else's word on it. P3, P4, P5, P6."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Callable, MutableMapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest
import structlog

from sekisho.adapters.scheduler_memory import Play
from sekisho.domain.errors import (
    InvalidTransition,
    NotFound,
    SekishoError,
    StaleEpoch,
    StorageFull,
    Unavailable,
    Unreachable,
)
from sekisho.domain.limits import MIN_POLL_SECONDS
from sekisho.domain.run import Stage
from sekisho.domain.sitelog import Kind
from tests.site_world import DAY, GOOD, INSTANCE, RESULT, SITE, World
from tests.virtual_time import simulate

#: After which call the line is cut, in every stage of a run that has inputs and outputs.
CUTS = [
    "mailbox.poll",
    "journal.append",
    "journal.save",
    "mailbox.accept",
    "mailbox.list_inputs",
    "workplace.prepare",
    "mailbox.fetch",
    "scheduler.submit",
    "scheduler.observe",
    "mailbox.tell",
    "workplace.collect",
    "workplace.staged",
    "mailbox.send",
]
#: The calls by which a run speaks to the broker, and whether the command runs by then.
WORDS = ["mailbox.accept", "mailbox.list_inputs", "mailbox.fetch", "mailbox.send", "mailbox.tell"]
DISOWNING = [StaleEpoch(), NotFound("job.not_found"), InvalidTransition()]


@pytest.mark.parametrize("moment", CUTS)
def test_a_day_without_the_broker_kills_nothing_and_the_result_arrives(
    tmp_path: Path, moment: str
) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [replace(GOOD, seconds=1800)]
    job = world.submit(inputs={"a.dat": b"1"})

    def cut(label: str) -> None:
        if label == moment and not cuts:
            cuts.append(world.clock.passed)
            world.cut_line()

    cuts: list[float] = []
    world.effects.lost_reply = cut

    async def story() -> tuple[str, float]:
        async with world.serving():
            await world.until(lambda: cuts, DAY)
            await world.until(lambda: world.clock.passed > cuts[0] + DAY, 2 * DAY)
            world.mend_line()
            back = world.clock.passed
            return await world.ended(job, 5000), world.clock.passed - back

    state, waited = simulate(world.clock, story)
    assert state == "succeeded"
    assert world.outputs(job)["result.txt"] == RESULT
    assert (len(world.scheduler.started), world.scheduler.pressed) == (1, [])
    ran = world.outcome(job)
    assert ran.started_at is not None
    assert ran.ended_at is not None
    assert ran.ended_at - ran.started_at == timedelta(seconds=1800)
    if "scheduler.submit" in world.effects.calls[: world.effects.calls.index(moment)]:
        assert waited < 65 + 5


def test_a_result_leaves_as_soon_as_any_call_gets_through_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    job = world.submit()

    async def story() -> float:
        async with world.serving() as agent:
            await world.until(lambda: world.scheduler.started)
            world.cut_line()
            cut = world.clock.passed
            await world.until(lambda: world.clock.passed > cut + DAY, 2 * DAY)
            world.mend_line()
            back = world.clock.passed
            agent.wake()  # the next poll is made at once; the job's own pause would be a minute
            assert await world.ended(job) == "succeeded"
            return world.clock.passed - back

    assert simulate(world.clock, story) < MIN_POLL_SECONDS + 2


def test_a_time_limit_holds_while_the_broker_is_away(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [replace(GOOD, seconds=1e6)]
    job = world.submit()

    async def story() -> str:
        async with world.serving():
            await world.until(lambda: world.scheduler.started)
            world.cut_line()
            await world.until(lambda: world.scheduler.pressed, 2 * 3600)
            world.mend_line()
            return await world.ended(job)

    assert simulate(world.clock, story) == "failed"
    assert world.scheduler.pressed[0][2] == pytest.approx(3600, abs=1)


@pytest.mark.parametrize("step", ["mailbox.fetch", "mailbox.send"])
def test_a_transfer_that_gets_further_at_every_try_is_never_waited_for_long(
    tmp_path: Path, step: str
) -> None:
    """A line that is cut every few seconds. The control: one on which nothing gets through."""

    def seconds(folder: str, *, advanced: bool) -> float:
        (tmp_path / folder).mkdir()
        world = World(tmp_path / folder)
        cut = Unreachable(why="cut")
        cut.advanced = advanced
        world.fail(step, cut, times=20)
        job = world.submit(inputs={"a.dat": b"1"})

        async def story() -> str:
            async with world.serving():
                return await world.ended(job, within_s=5000)

        assert simulate(world.clock, story) == "succeeded"
        return world.clock.passed

    assert seconds("moves", advanced=True) < 60
    assert seconds("stands", advanced=False) > 300


@pytest.mark.parametrize("word", WORDS)
def test_an_answer_that_is_lost_is_asked_for_again(tmp_path: Path, word: str) -> None:
    world = World(tmp_path)
    job = world.submit(inputs={"a.dat": b"1"})
    lost: list[str] = []

    def lose(label: str) -> SekishoError | None:
        if label != word or len(lost) >= 2:
            return None
        lost.append(label)
        return Unreachable(why="cut")

    world.effects.lost_reply = lose

    async def story() -> str:
        async with world.serving():
            return await world.ended(job)

    assert simulate(world.clock, story) == "succeeded"
    assert len(lost) == 2
    assert world.outputs(job)["result.txt"] == RESULT
    assert len(world.scheduler.started) == 1


@pytest.mark.parametrize("error", DISOWNING)
@pytest.mark.parametrize("word", WORDS)
def test_a_job_that_the_broker_gave_away_is_dropped_and_the_log_says_so(
    tmp_path: Path, word: str, error: SekishoError
) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [replace(GOOD, seconds=0)]
    job = world.submit(inputs={"a.dat": b"1"})
    world.fail(word, error, times=100)

    async def story() -> None:
        async with world.serving():
            await world.until(lambda: world.logged(Kind.DROPPED))
            await world.until(lambda: (run := world.run(job)) is not None and run.settled)

    simulate(world.clock, story)
    run = world.run(job)
    assert run is not None
    assert (run.stage, run.finished_at is not None) == (Stage.DROPPED, True)
    assert [r.facts["code"] for r in world.logged(Kind.DROPPED)] == [error.code]
    assert len(world.scheduler.started) == (word in WORDS[3:])


@pytest.mark.parametrize("error", DISOWNING)
def test_a_running_command_that_is_not_ours_any_more_is_stopped(
    tmp_path: Path, error: SekishoError
) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [replace(GOOD, seconds=1e5, on_term=None)]
    job = world.submit()
    world.fail("mailbox.tell", error, times=100)

    async def story() -> float:
        async with world.serving():
            await world.until(lambda: world.logged(Kind.DROPPED))
            return world.clock.passed

    at = simulate(world.clock, story)
    run = world.run(job)
    assert run is not None
    assert run.stage is Stage.DROPPED
    assert [force for _, force, _ in world.scheduler.pressed].count(True) == 1
    assert at < 20


def test_a_machine_that_cannot_be_asked_delays_the_stop_but_does_not_end_the_agent(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [replace(GOOD, seconds=1e5)]
    world.submit()
    told: list[str] = []

    def fault(label: str) -> SekishoError | None:
        if label == "mailbox.tell":
            told.append(label)
            return StaleEpoch()
        return Unavailable() if label == "scheduler.cancel" and len(pressed()) < 4 else None

    def pressed() -> list[str]:
        return [call for call in world.effects.calls if call == "scheduler.cancel"]

    world.effects.fault = fault

    async def story() -> None:
        async with world.serving():
            await world.until(lambda: world.logged(Kind.DROPPED))

    simulate(world.clock, story)
    assert told == ["mailbox.tell"]


def test_an_operator_who_declares_a_running_job_lost_is_heard(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [replace(GOOD, pending_s=5, seconds=1e5)]
    job = world.submit()

    async def story() -> None:
        async with world.serving():
            await world.until(lambda: world.state(job) == "accepted")
            world.broker.sites.lost(job, "operator")
            await world.until(lambda: world.logged(Kind.DROPPED))

    simulate(world.clock, story)
    assert world.state(job) == "lost"
    assert world.scheduler.pressed != []


@pytest.mark.parametrize("word", ["mailbox.send", "mailbox.tell"])
def test_a_refused_verdict_is_not_said_for_ever(tmp_path: Path, word: str) -> None:
    world = World(tmp_path)
    job = world.submit("unknown") if word == "mailbox.tell" else world.submit()
    world.fail(word, InvalidTransition(), times=10_000)

    async def story() -> None:
        async with world.serving():
            await world.until(lambda: world.logged(Kind.DROPPED))
            await world.until(lambda: (run := world.run(job)) is None or run.settled)

    simulate(world.clock, story)
    assert world.effects.calls.count(word) == 1


def test_a_taken_job_that_is_offered_again_goes_on_under_the_new_epoch(tmp_path: Path) -> None:
    world = World(tmp_path)
    job = world.submit()
    world.fail("mailbox.accept", Unavailable(), times=4)

    async def story() -> str:
        agent = world.agent()
        assert await agent.once() == 1
        world.clock.passed += 61
        world.broker.reaper.expire()
        assert await world.agent().once() == 1
        run = world.run(job)
        assert run is not None
        assert (run.epoch, run.stage) == (2, Stage.RUNNING)
        async with world.serving():
            return await world.ended(job)

    assert simulate(world.clock, story) == "succeeded"
    assert len(world.logged(Kind.OFFERED)) == 1


def test_an_accept_that_came_too_late_drops_the_job_and_the_next_offer_begins_afresh(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    job = world.submit()
    ends = {"mailbox.accept": 100.0, "mailbox.poll": 150.0}
    world.effects.fault = lambda label: (
        Unavailable()
        if "journal.save" in world.effects.calls and world.clock.passed < ends.get(label, 0)
        else None
    )

    async def story() -> str:
        async with world.serving():
            return await world.ended(job)

    assert simulate(world.clock, story) == "succeeded"
    assert world.job(job).epoch > 1
    assert world.logged(Kind.DROPPED)
    assert len(world.scheduler.started) == 1


# --- nothing leaves without a record (P6) ---------------------------------------------------------


def watch_what_leaves(world: World, job: str, leaks: list[str]) -> Callable[[str], None]:
    """Return a look at every call: a digest may be sent, or told, only after it was recorded."""

    def look(label: str) -> None:
        if label not in {"mailbox.send", "mailbox.tell"}:
            return
        run = world.run(job)
        if label == "mailbox.tell" and (run is None or run.result is None):
            return
        recorded = [r.facts["tree"] for r in world.logged(Kind.RELEASED)]
        if run is None or run.tree not in recorded:
            leaks.append(label)

    return look


def test_what_leaves_is_in_the_log_before_the_first_byte(tmp_path: Path) -> None:
    world = World(tmp_path)
    job = world.submit()
    leaks: list[str] = []
    world.effects.fault = watch_what_leaves(world, job, leaks)

    async def story() -> str:
        async with world.serving():
            return await world.ended(job)

    assert simulate(world.clock, story) == "succeeded"
    calls = world.effects.calls
    assert leaks == []
    assert calls.index("mailbox.send") > max(
        n for n, call in enumerate(calls[:-2]) if call in {"journal.append", "journal.save"}
    )


def test_the_watch_over_what_leaves_sees_a_leak(tmp_path: Path) -> None:
    world = World(tmp_path)
    job = world.submit()
    leaks: list[str] = []
    look = watch_what_leaves(world, job, leaks)

    def forget_and_look(label: str) -> None:
        if label == "mailbox.send":
            world.journal.records.clear()
        look(label)

    world.effects.fault = forget_and_look

    async def story() -> str:
        async with world.serving():
            return await world.ended(job)

    simulate(world.clock, story)
    assert leaks == ["mailbox.send", "mailbox.tell"]


@pytest.mark.parametrize("play", [GOOD, replace(GOOD, code=1), Play(seconds=5)])
def test_without_a_writable_log_nothing_leaves(tmp_path: Path, play: Play) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [play]
    job = world.submit()

    async def story() -> str:
        async with world.serving():
            await world.until(lambda: world.scheduler.started)
            before = len(world.effects.calls)
            world.effects.fault = lambda label: StorageFull() if label == "journal.append" else None
            await world.until(lambda: world.clock.passed > 3600, DAY)
            since = world.effects.calls[before:]
            assert since.count("journal.append") > 10
            assert "mailbox.send" not in since
            assert since.count("mailbox.tell") <= 1  # that it started
            assert world.job(job).result is None
            world.mend_line()
            return await world.ended(job)

    assert simulate(world.clock, story) == ("succeeded" if play is GOOD else "failed")


@pytest.mark.parametrize("written", [0, 1])  # not even the offer is recorded; only the offer is
def test_a_refusal_that_cannot_be_logged_is_not_told(tmp_path: Path, written: int) -> None:
    world = World(tmp_path)
    job = world.submit("unknown")
    tries = itertools.count()

    def full(label: str) -> SekishoError | None:
        fails = label == "journal.append" and written <= next(tries) < written + 5
        return StorageFull() if fails else None

    world.effects.fault = full

    async def story() -> str:
        async with world.serving():
            await world.until(lambda: world.effects.calls.count("journal.append") >= written + 4)
            assert "mailbox.tell" not in world.effects.calls
            return await world.ended(job)

    assert simulate(world.clock, story) == "refused"


def test_a_result_is_the_same_bytes_however_often_it_is_said(tmp_path: Path) -> None:
    world = World(tmp_path)
    job = world.submit()
    envelopes: list[str] = []

    def lose(label: str) -> SekishoError | None:
        if label != "mailbox.tell" or world.job(job).result is None or len(envelopes) > 3:
            return None
        envelopes.append(hashlib.sha256(world.job(job).result or b"").hexdigest())
        return Unreachable(why="cut")

    world.effects.lost_reply = lose

    async def story() -> str:
        async with world.serving():
            return await world.ended(job)

    assert simulate(world.clock, story) == "succeeded"
    assert (len(envelopes), len(set(envelopes))) == (4, 1)
    assert (world.job(job).site, world.job(job).instance) == (SITE, INSTANCE)


def test_what_a_run_waits_for_is_spoken_of_ever_more_seldom(tmp_path: Path) -> None:
    """Kills: a line for every try of every run, all night."""
    world = World(tmp_path)
    world.fail("mailbox.list_inputs", Unreachable(), times=10_000)
    said: list[int] = []

    def hear(_: object, __: str, event: MutableMapping[str, Any]) -> NoReturn:
        if event["event"] == "run_waits":
            said.append(event["tries"])
        raise structlog.DropEvent

    async def story() -> None:
        structlog.configure(
            processors=[hear], wrapper_class=structlog.make_filtering_bound_logger(logging.INFO)
        )
        world.submit(inputs={"a.dat": b"1"})
        async with world.serving():
            await world.until(lambda: world.clock.passed > DAY, within_s=2 * DAY)

    simulate(world.clock, story)
    assert said[0] == 1
    assert 24 <= len(said) <= 24 + 12
    assert said[-1] > 1000
