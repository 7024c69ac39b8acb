"""How runs are stopped, and what is said of those that vanish: P3, P9, limits, slots."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from sekisho.adapters.scheduler_memory import Play
from sekisho.domain.errors import Unavailable
from sekisho.domain.run import Stage, Stop
from sekisho.domain.sitelog import Kind
from sekisho.site.launch import GRACE_SECONDS, MAX_ATTEMPTS
from tests.site_world import DAY, GOOD, MINUTE, World, a_command, a_manifest
from tests.virtual_time import simulate

ENDLESS = replace(GOOD, seconds=1e6)


def cancelled_when(world: World, job: str, moment: str) -> str:
    """Cancel ``job`` right after the first call named ``moment``; return how it ends."""
    done = False

    def cancel(label: str) -> None:
        nonlocal done
        if label == moment and not done:
            done = True
            world.cancel(job)

    world.effects.lost_reply = cancel

    async def story() -> str:
        async with world.serving():
            return await world.ended(job)

    return simulate(world.clock, story)


def test_a_job_that_nobody_took_is_cancelled_without_the_site(tmp_path: Path) -> None:
    world = World(tmp_path)
    job = world.submit()
    world.cancel(job)
    assert world.state(job) == "cancelled"


@pytest.mark.parametrize("moment", ["journal.save", "mailbox.accept"])
def test_a_cancel_before_the_start_starts_nothing(tmp_path: Path, moment: str) -> None:
    world = World(tmp_path)
    job = world.submit()
    assert cancelled_when(world, job, moment) == "cancelled"
    assert world.scheduler.started == []


def test_a_cancel_while_the_inputs_cannot_come_starts_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    job = world.submit(inputs={"a.dat": b"1"})
    world.fail("mailbox.fetch", Unavailable(), times=10_000)

    async def story() -> str:
        async with world.serving():
            await world.until(lambda: "mailbox.fetch" in world.effects.calls)
            world.cancel(job)
            return await world.ended(job)

    assert simulate(world.clock, story) == "cancelled"
    assert world.scheduler.started == []


def test_a_cancel_while_waiting_for_a_slot_of_its_command_starts_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [replace(GOOD, seconds=100)]
    jobs = [world.submit(), world.submit()]

    async def story() -> tuple[str, float, str]:
        async with world.serving():
            await world.until(lambda: world.effects.calls.count("mailbox.accept") == 2)
            await world.until(lambda: world.scheduler.started)
            [waiting] = [job for job in jobs if not (run := world.run(job)) or not run.token]
            [running] = set(jobs) - {waiting}
            world.cancel(waiting)
            state, at = await world.ended(waiting), world.clock.passed
            return state, at, await world.ended(running)

    state, at, other = simulate(world.clock, story)
    assert (state, at < 100, len(world.scheduler.started)) == ("cancelled", True, 1)
    assert other == "succeeded"


def test_a_running_command_is_asked_politely_first(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [ENDLESS]
    job = world.submit()
    assert cancelled_when(world, job, "scheduler.observe") == "cancelled"
    assert [force for _, force, _ in world.scheduler.pressed] == [False]
    assert world.outcome(job).code is None


def test_a_command_that_ignores_the_request_is_ended_by_force_after_a_grace(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [replace(ENDLESS, on_term=None)]
    job = world.submit()
    assert cancelled_when(world, job, "scheduler.observe") == "cancelled"
    times = {force: at for _, force, at in reversed(world.scheduler.pressed)}
    assert GRACE_SECONDS <= times[True] - times[False] < GRACE_SECONDS + 2
    assert len(world.scheduler.pressed) < 5


def test_a_command_that_ends_well_when_asked_to_stop_has_succeeded(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [replace(ENDLESS, on_term=0)]
    job = world.submit()
    assert cancelled_when(world, job, "scheduler.observe") == "succeeded"


@pytest.mark.parametrize("moment", ["workplace.collect", "mailbox.send"])
def test_a_cancel_after_the_end_changes_nothing(tmp_path: Path, moment: str) -> None:
    world = World(tmp_path)
    job = world.submit()
    assert cancelled_when(world, job, moment) == "succeeded"
    assert world.scheduler.pressed == []


def test_a_cancelled_run_leaves_nothing_behind_at_the_broker(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [ENDLESS]
    job = world.submit()
    cancelled_when(world, job, "scheduler.observe")
    assert world.outputs(job) == {}
    assert [r.kind for r in world.journal.records][-1] is Kind.CANCELLED


def test_a_time_limit_stops_a_run_and_is_the_reason(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [ENDLESS]
    job = world.submit()

    async def story() -> str:
        async with world.serving():
            return await world.ended(job, 2 * 3600)

    assert simulate(world.clock, story) == "failed"
    assert world.outcome(job).code == "limit.time"
    assert world.scheduler.pressed[0][2] == pytest.approx(3600, abs=1)
    assert world.effects.calls.count("scheduler.observe") < 200


def test_what_ended_well_at_its_time_limit_has_succeeded(tmp_path: Path) -> None:
    world = World(tmp_path, a_manifest(a_command(time_limit=timedelta(seconds=30))))
    world.plays["solve"] = [replace(ENDLESS, on_term=0)]
    job = world.submit()
    assert cancelled_when(world, job, "never") == "succeeded"
    assert world.outcome(job).code is None


def test_a_clock_that_jumps_by_a_day_stops_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [replace(GOOD, seconds=600)]
    job = world.submit()

    async def story() -> str:
        async with world.serving():
            await world.until(lambda: world.scheduler.started)
            world.clock.jump(timedelta(days=1))
            return await world.ended(job)

    assert simulate(world.clock, story) == "succeeded"


def test_a_time_limit_counts_what_passed_while_no_agent_ran(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [ENDLESS]
    job = world.submit()

    async def first() -> None:
        async with world.serving():
            await world.until(lambda: world.scheduler.started)
        world.clock.passed += 2 * 3600

    async def second() -> str:
        async with world.serving():
            return await world.ended(job, 60)

    simulate(world.clock, first)
    assert simulate(world.clock, second) == "failed"
    assert world.outcome(job).code == "limit.time"


def test_a_command_that_the_manifest_lost_releases_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    job = world.submit()

    async def story() -> str:
        async with world.serving():
            await world.until(lambda: world.scheduler.started)
            world.remove()
            return await world.ended(job)

    assert simulate(world.clock, story) == "failed"
    assert (world.outcome(job).code, world.outputs(job)) == ("command.unknown", {})
    assert "mailbox.send" not in world.effects.calls


def test_a_command_that_the_manifest_lost_still_ends(tmp_path: Path) -> None:
    world = World(tmp_path, a_manifest(a_command(retention=timedelta(days=1))))
    world.plays["solve"] = [ENDLESS]
    job = world.submit()

    async def story() -> str:
        async with world.serving():
            await world.until(lambda: world.scheduler.started)
            world.remove()
            return await world.ended(job, 3 * DAY)

    assert simulate(world.clock, story) == "failed"
    assert world.outcome(job).code == "limit.time"


VANISH = Play(seconds=5, fate="vanishes")


def course(world: World, job: str, within_s: float = 1000) -> str:
    async def story() -> str:
        async with world.serving():
            return await world.ended(job, within_s)

    return simulate(world.clock, story)


def test_what_was_started_and_vanished_is_lost_and_not_started_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [VANISH, GOOD]
    job = world.submit()
    assert course(world, job) == "lost"
    assert world.outcome(job).code == "site.fate_unknown"
    assert len(world.scheduler.started) == 1


def test_an_idempotent_command_that_vanished_is_started_again(tmp_path: Path) -> None:
    world = World(tmp_path, a_manifest(a_command(idempotent=True)))
    world.plays["solve"] = [VANISH, GOOD]
    job = world.submit(inputs={"a.dat": b"1"})
    assert course(world, job) == "succeeded"
    assert len(set(world.scheduler.started)) == 2
    assert len(world.work_dirs(job)) == 2


def test_an_idempotent_command_that_vanishes_every_time_is_lost_in_the_end(tmp_path: Path) -> None:
    world = World(tmp_path, a_manifest(a_command(idempotent=True)))
    world.plays["solve"] = [VANISH]
    job = world.submit()
    assert course(world, job) == "lost"
    assert len(set(world.scheduler.started)) == MAX_ATTEMPTS


def test_what_was_never_started_is_started_afresh(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [Play(fate="never starts"), GOOD]
    job = world.submit()
    assert course(world, job) == "succeeded"
    assert len(world.scheduler.started) == 1


def test_what_never_comes_to_a_start_fails_in_the_end(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [Play(fate="never starts")]
    job = world.submit()
    assert course(world, job) == "failed"
    assert world.outcome(job).code == "launch.failed"
    assert world.effects.calls.count("scheduler.submit") == MAX_ATTEMPTS


@pytest.mark.parametrize("fate", ["vanishes", "never starts"])
@pytest.mark.parametrize(
    ("stop", "state", "code"),
    [(Stop.CANCEL, "cancelled", None), (Stop.TIME_LIMIT, "failed", "limit.time")],
)
def test_what_was_to_stop_and_is_dead_without_a_record_is_not_started_again(
    tmp_path: Path, fate: str, stop: Stop, state: str, code: str | None
) -> None:
    world = World(tmp_path, a_manifest(a_command(idempotent=True)))
    world.plays["solve"] = [Play(pending_s=5, seconds=5, fate=fate)]  # type: ignore[arg-type]
    job = world.submit()

    async def first() -> None:
        async with world.serving():
            await world.until(lambda: "scheduler.changed" in world.effects.calls)
            run = world.run(job)
            assert run is not None
            world.journal.save(replace(run, stop=stop))

    simulate(world.clock, first)
    world.scheduler.pressed.clear()
    world.clock.passed += 60
    assert course(world, job) == state
    assert world.outcome(job).code == code
    assert len(world.scheduler.started) <= 1


def test_a_limit_per_command_holds_whatever_the_site_could_take(tmp_path: Path) -> None:
    world = World(tmp_path, a_manifest(a_command(max_running=2), a_command("other")))
    for name in ("solve", "other"):
        world.plays[name] = [replace(GOOD, seconds=100)]
    jobs = [world.submit() for _ in range(5)]
    world.manifest = replace(world.manifest, max_running=8)
    jobs.append(world.submit("other"))
    most: dict[str, int] = {}

    async def story() -> list[str]:
        async with world.serving():
            while not all(world.job(job).state.terminal for job in jobs):
                runs = [
                    r for r in world.journal.runs() if r.stage in (Stage.SUBMITTED, Stage.RUNNING)
                ]
                for name in ("solve", "other"):
                    now = sum(r.command == name for r in runs)
                    most[name] = max(most.get(name, 0), now)
                await anyio.sleep(0.5)
            return [world.state(job) for job in jobs]

    assert simulate(world.clock, story) == ["succeeded"] * 6
    assert most == {"solve": 2, "other": 1}
    assert world.clock.passed == pytest.approx(300, abs=10)


def test_a_limit_that_is_raised_counts_without_waiting_for_an_end(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [replace(GOOD, seconds=3000)]
    world.submit(), world.submit()

    async def story() -> None:
        async with world.serving():
            await world.until(lambda: world.effects.calls.count("mailbox.accept") == 2)
            world.edit(max_running=2)
            await world.until(lambda: len(world.scheduler.started) == 2, MINUTE)

    simulate(world.clock, story)


def test_a_full_journal_at_the_start_does_not_take_the_slot_for_ever(tmp_path: Path) -> None:
    world = World(tmp_path)
    job = world.submit()
    world.effects.fault = lambda label: (
        Unavailable() if label == "journal.save" and 2 <= saves(world) <= 4 else None
    )
    assert course(world, job) == "succeeded"
    assert saves(world) > 5


def saves(world: World) -> int:
    return world.effects.calls.count("journal.save")


def test_a_pending_job_is_not_told_as_started(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [replace(GOOD, pending_s=500, seconds=100)]
    job = world.submit()
    seen: dict[str, float] = {}

    async def story() -> None:
        async with world.serving():
            await world.until(lambda: world.state(job) == "accepted")
            await world.until(lambda: world.state(job) == "running")
            seen["running"] = world.clock.passed

    simulate(world.clock, story)
    assert 500 <= seen["running"] < 502
