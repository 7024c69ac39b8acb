"""A carrier's lane to its gates: what is offered, when it is offered again, and what wakes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from sekisho.adapters.mailbox_gate import GateMailbox
from sekisho.domain.run import Stage
from sekisho.wire.v1 import PollAnswer
from tests.component.gate_world import World, a_submission


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def mailbox(world: World) -> GateMailbox:
    return GateMailbox(world.store, world.journal, world.chunks, world.clock)


def polled(
    mailbox: GateMailbox, *, free: int = 9, holds: tuple[str, ...] = (), told: tuple[str, ...] = ()
) -> PollAnswer:
    async def poll() -> PollAnswer:
        return await mailbox.poll(free=free, holds=holds, cancelling=told, wait_s=0.01)

    return anyio.run(poll)


def offered(answer: PollAnswer) -> list[str]:
    return [offer.job for offer in answer.offers]


def test_ready_jobs_are_offered_oldest_first(world: World, mailbox: GateMailbox) -> None:
    ids = sorted(world.gate().submit(a_submission()).id for _ in range(4))
    assert offered(polled(mailbox, free=3)) == ids[:3]


def test_drafts_and_runs_and_dropped_jobs_are_not_offered(
    world: World, mailbox: GateMailbox
) -> None:
    gate = world.gate()
    gate.submit(a_submission(has_inputs=True))
    world.run(gate.submit(a_submission()).id, Stage.TAKEN)
    gone = gate.submit(a_submission()).id
    world.store.update(gone, "alice", lambda job: replace(job, gone=True))
    assert offered(polled(mailbox)) == []
    assert mailbox.open() is True


def test_an_offer_that_is_not_taken_is_not_made_again_at_once(
    world: World, mailbox: GateMailbox
) -> None:
    """Killed by: a carrier on a full disk that offers, fails and offers as fast as it can."""
    job = world.gate().submit(a_submission()).id
    assert offered(polled(mailbox)) == [job]
    assert offered(polled(mailbox)) == []
    later = world.gate().submit(a_submission()).id
    assert offered(polled(mailbox)) == [later]


def test_what_had_no_room_is_offered_when_there_is(world: World, mailbox: GateMailbox) -> None:
    job = world.gate().submit(a_submission()).id
    assert offered(polled(mailbox, free=0)) == []
    assert offered(polled(mailbox, free=1)) == [job]


def test_an_offer_says_whose_job_it_is(world: World, mailbox: GateMailbox) -> None:
    world.gate("bob").submit(a_submission(request=b"what bob wants"))
    (offer,) = polled(mailbox).offers
    assert (offer.submitter, offer.request) == ("bob", b"what bob wants")


def test_a_cancel_is_passed_on_once_the_job_is_held(world: World, mailbox: GateMailbox) -> None:
    gate = world.gate()
    job = gate.submit(a_submission()).id
    gate.cancel(job)
    assert polled(mailbox).cancel == []
    world.run(job, Stage.TAKEN)
    assert polled(mailbox, holds=(job,)).cancel == [job]
    assert polled(mailbox, holds=(job,), told=(job,)).cancel == []


def test_a_wake_ends_the_waiting(world: World, mailbox: GateMailbox) -> None:
    async def story() -> PollAnswer:
        found: list[PollAnswer] = []

        async def poll() -> None:
            found.append(await mailbox.poll(free=1, holds=(), cancelling=(), wait_s=3600))

        async with anyio.create_task_group() as group:
            group.start_soon(poll)
            await anyio.wait_all_tasks_blocked()
            world.gate().submit(a_submission())
            mailbox.wake()
        return found[0]

    with_limit = anyio.run(story)
    assert len(with_limit.offers) == 1


def test_a_wake_before_the_waiting_is_not_lost(mailbox: GateMailbox) -> None:
    mailbox.wake()

    async def story() -> PollAnswer:
        with anyio.fail_after(20):
            return await mailbox.poll(free=1, holds=(), cancelling=(), wait_s=3600)

    assert anyio.run(story) == PollAnswer()


@pytest.mark.parametrize("stage", Stage)
def test_a_carrier_stays_until_every_run_is_settled(
    world: World, mailbox: GateMailbox, stage: Stage
) -> None:
    job = world.gate().submit(a_submission()).id
    world.run(job, stage)
    assert mailbox.open() is (stage is not Stage.DROPPED)
    world.settled(job, stage)
    assert mailbox.open() is not stage.final


def test_a_carrier_need_not_stay_for_a_draft(world: World, mailbox: GateMailbox) -> None:
    world.gate().submit(a_submission(has_inputs=True))
    assert mailbox.open() is False


def test_a_job_that_waited_too_long_ends_and_is_not_offered(
    world: World, mailbox: GateMailbox
) -> None:
    """P2. What was taken in time goes on, however late it is."""
    late, taken, cancelled = (world.gate().submit(a_submission(queue_s=60.0)).id for _ in range(3))
    world.run(taken, Stage.TAKEN)
    world.gate().cancel(cancelled)
    assert set(offered(polled(mailbox, free=0))) == set()
    world.clock.passed += 61
    assert offered(polled(mailbox)) == [cancelled]
    states = [world.gate().view(job, None, 0).state for job in (late, taken, cancelled)]
    assert states == ["expired", "accepted", "queued"]
    fresh = world.gate().submit(a_submission(queue_s=60.0)).id
    assert offered(polled(mailbox)) == [fresh]
