"""What a short job does not wait for, and what a longer one is remembered by all the same."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest
from anyio import to_thread

from sekisho.adapters.scheduler_memory import Play
from sekisho.domain.errors import Conflict, SekishoError, StorageFull, Unavailable
from sekisho.domain.run import Stage
from tests.site_world import RESULT, World, leaves
from tests.virtual_time import simulate

#: Every step of a job without inputs that ends within a moment; the waiting left out.
STEPS = {
    "mailbox.accept": 1,
    "workplace.prepare": 1,
    "scheduler.submit": 1,
    "scheduler.observe": 1,
    "workplace.collect": 1,
    "workplace.stage": 1,
    "workplace.staged": 1,
    "mailbox.send": 1,
    "mailbox.tell": 1,
    "journal.knew": 1,
    "journal.append": 4,
    "journal.save": 4,
}


def carried(world: World, job: str) -> tuple[str, str | None]:
    async def story() -> str:
        async with world.serving():
            return await world.ended(job)

    return simulate(world.clock, story), world.outcome(job).code


def a_world(base: Path, seconds: float) -> World:
    world = World(base)
    world.plays["solve"] = [Play(seconds=seconds, leave=leaves(result_txt=RESULT))]
    return world


def test_a_job_that_ends_at_once_takes_no_step_too_many(tmp_path: Path) -> None:
    """Kills: a second look, a record of what has passed, a message that another one can carry."""
    world = a_world(tmp_path, 0.01)
    assert carried(world, world.submit()) == ("succeeded", None)
    taken = Counter(call for call in world.effects.calls if call in STEPS)
    assert taken == STEPS


def test_a_job_that_goes_on_is_remembered_with_its_ticket_and_announced(tmp_path: Path) -> None:
    world = a_world(tmp_path, 5.0)
    job = world.submit()
    seen: list[tuple[Stage, bool]] = []

    async def story() -> str:
        async with world.serving():
            await world.until(lambda: world.state(job) == "running")
            run = world.run(job)
            assert run is not None
            seen.append((run.stage, run.ticket is not None))
            return await world.ended(job)

    assert simulate(world.clock, story) == "succeeded"
    assert seen == [(Stage.RUNNING, True)]
    assert world.effects.calls.count("scheduler.submit") == 1


def test_a_ticket_that_could_not_be_kept_is_kept_at_the_next_look(tmp_path: Path) -> None:
    """Kills: forgetting that it is still owed, when a look or the record of it has failed."""
    world = a_world(tmp_path, 500.0)
    job = world.submit()
    left = {"scheduler.observe": 1}

    def fault(label: str) -> SekishoError | None:
        left[label] = left.get(label, 0) - 1
        return Unavailable("launch.unavailable") if left[label] >= 0 else None

    world.effects.fault = fault

    async def story() -> Stage:
        async with world.serving():
            await world.until(lambda: world.state(job) == "running")
            run = world.run(job)
            assert run is not None
            return run.stage

    assert simulate(world.clock, story) is Stage.RUNNING


def test_offers_are_taken_side_by_side(tmp_path: Path) -> None:
    """Kills: one after the other. Each waits for three syncs, of which several could share one."""
    world = a_world(tmp_path, 0.01)
    second = threading.Event()
    seen: list[bool] = []

    def watch(label: str) -> None:
        if label == "journal.knew" and world.effects.calls.count(label) == 2:
            second.set()
        if label == "journal.append" and not second.is_set():
            seen.append(second.wait(30))

    world.effects.fault = watch
    jobs = [world.submit(), world.submit()]

    async def story() -> list[str]:
        to_thread.current_default_thread_limiter().total_tokens = 4
        async with world.serving():
            return [await world.ended(job) for job in jobs]

    assert simulate(world.clock, story) == ["succeeded", "succeeded"]
    assert False not in seen


def test_directories_are_made_once_while_the_broker_is_asked(tmp_path: Path) -> None:
    world = a_world(tmp_path, 0.01)
    world.fail("mailbox.accept", Unavailable(), times=3)
    assert carried(world, world.submit()) == ("succeeded", None)
    assert world.effects.calls.count("mailbox.accept") == 4
    assert world.effects.calls.count("workplace.prepare") == 1


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (StorageFull("site.disk_full"), ("failed", "site.disk_full")),
        (Conflict("site.attempt_started"), ("lost", "site.fate_unknown")),
    ],
)
def test_what_is_wrong_with_directories_made_early_shows_when_they_are_needed(
    tmp_path: Path, error: SekishoError, end: tuple[str, str]
) -> None:
    world = a_world(tmp_path, 0.01)
    world.fail("workplace.prepare", error, times=2)
    assert carried(world, world.submit()) == end
    assert world.effects.calls.index("workplace.prepare") < world.effects.calls.index(
        "mailbox.tell"
    )
    assert world.scheduler.started == []


def test_a_large_result_is_announced_before_it_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of `mailbox.tell: 1` above: what takes long to send is said to have ended."""
    monkeypatch.setattr("sekisho.site.release.SOON_BYTES", len(RESULT) - 1)
    world = a_world(tmp_path, 0.01)
    assert carried(world, world.submit()) == ("succeeded", None)
    calls = [call for call in world.effects.calls if call in ("mailbox.tell", "mailbox.send")]
    assert calls == ["mailbox.tell", "mailbox.send", "mailbox.tell"]
