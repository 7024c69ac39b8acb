"""What a site can rely on, and what it cannot do: sticky accept, epochs, verdicts (P2, P3, P4)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from sekisho.domain.errors import Conflict, InvalidTransition, NotFound, StaleEpoch
from sekisho.domain.job import JobState
from sekisho.domain.limits import OFFER_TIME
from sekisho.wire.v1 import Accept, Offer, Poll
from tests.component.broker_world import AGENT, OTHER_AGENT, World
from tests.world import a_chunk

YEAR = timedelta(days=365)


@pytest.fixture
def world() -> World:
    return World()


def test_a_poll_is_offered_the_oldest_jobs_and_no_more_than_it_has_room_for(world: World) -> None:
    jobs = [world.submit() for _ in range(3)]
    assert [offer.job for offer in world.poll(free=2).offers] == [job.id for job in jobs[:2]]
    assert world.poll(free=0).offers == []


def test_no_job_is_offered_to_two_agents(world: World) -> None:
    world.submit()
    assert len(world.poll(AGENT).offers) == 1
    assert world.poll(OTHER_AGENT).offers == []


def test_an_offer_that_its_agent_does_not_name_when_it_asks_again_is_made_anew(
    world: World,
) -> None:
    """The answer was lost. Kills: waiting for the offer's end; two agents with good offers."""
    job = world.submit()
    (lost,) = world.poll(AGENT).offers
    (again,) = world.poll(AGENT).offers
    assert (again.job, lost.epoch, again.epoch) == (job.id, 1, 2)
    with pytest.raises(StaleEpoch):
        world.desk.offers.accept("one", job.id, Accept(epoch=lost.epoch, instance=AGENT))
    accept = Accept(epoch=again.epoch, instance=AGENT)
    assert world.desk.offers.accept("one", job.id, accept).state is JobState.ACCEPTED


def test_an_offer_that_its_agent_names_stands(world: World) -> None:
    job = world.submit()
    (offer,) = world.poll(AGENT).offers
    holding = Poll(instance=AGENT, free=1, holds=[job.id])
    assert world.desk.offers.look("one", holding).offers == []
    accept = Accept(epoch=offer.epoch, instance=AGENT)
    assert world.desk.offers.accept("one", job.id, accept).state is JobState.ACCEPTED
    assert world.poll(AGENT).offers == []  # accepted: whether it is named does not matter any more
    assert world.job(job.id).state is JobState.ACCEPTED


def test_an_offer_to_another_agent_stands_whoever_asks(world: World) -> None:
    job = world.submit()
    world.poll(AGENT)
    assert world.poll(OTHER_AGENT).offers == []
    assert world.job(job.id).instance == AGENT


def test_of_offers_that_ran_out_or_were_refused_nothing_is_taken_back(world: World) -> None:
    job = world.submit()
    world.poll(AGENT)
    world.clock.move(OFFER_TIME)
    world.desk.reaper.expire()
    (offer,) = world.poll(OTHER_AGENT).offers
    world.poll(AGENT)
    assert (world.job(job.id).epoch, world.job(job.id).instance) == (offer.epoch, OTHER_AGENT)


def test_an_offer_carries_what_the_site_must_know(world: World) -> None:
    job = world.submit(request=b"opaque")
    assert world.poll().offers == [
        Offer(job=job.id, epoch=1, submitter="alice", request=b"opaque", accept_s=60.0)
    ]


def test_an_offer_is_for_its_own_site(world: World) -> None:
    world.submit()
    message = Poll(instance=AGENT, free=1)
    assert world.desk.offers.look("two", message).offers == []


def test_a_disabled_site_is_offered_nothing_but_keeps_what_it_has(world: World) -> None:
    offer = world.held()
    world.submit()
    world.desk.sites.switch("one", disabled=True)
    assert world.poll().offers == []
    assert world.report(offer, "started").state is JobState.RUNNING
    world.desk.sites.switch("one", disabled=False)
    assert len(world.poll().offers) == 1


def test_disabled_commands_come_with_every_answer(world: World) -> None:
    world.desk.sites.switch("one", disabled=True, command="solve")
    world.desk.sites.switch("one", disabled=True, command="mesh")
    assert world.poll().disabled_commands == ["mesh", "solve"]
    world.desk.sites.switch("one", disabled=False, command="mesh")
    assert world.poll().disabled_commands == ["solve"]


def test_a_site_is_noted_as_seen_at_most_every_30_seconds(world: World) -> None:
    message = Poll(instance=AGENT, free=1, agent_version="1")

    def seen_after(seconds: float, message: Poll = message) -> Any:
        world.clock.move(timedelta(seconds=seconds))
        world.desk.offers.seen("one", message)
        return world.desk.sites.get("one").last_seen_at

    first = seen_after(0)
    assert seen_after(29) == first
    assert seen_after(1) == first + timedelta(seconds=30)
    newer = Poll(instance=OTHER_AGENT, free=1, agent_version="1")
    assert seen_after(1, newer) == first + timedelta(seconds=31)


def test_an_accepted_job_is_never_given_to_anyone_else_by_a_timer(world: World) -> None:
    """P3: sticky accept."""
    offer = world.held()
    reaper = world.desk.reaper
    for _ in range(5):
        world.clock.move(YEAR)
        reaper.tick()
        assert world.poll(OTHER_AGENT).offers == []
    job = world.job(offer.job)
    assert (job.state, job.epoch, job.instance) == (JobState.ACCEPTED, 1, AGENT)


def test_an_accept_is_answered_the_same_when_repeated(world: World) -> None:
    world.submit()
    offer = world.offer()
    first = world.accept(offer)
    assert world.accept(offer) == first
    world.report(offer, "started")
    assert world.accept(offer).state is JobState.RUNNING


def test_only_the_instance_that_was_offered_a_job_can_accept_it(world: World) -> None:
    world.submit()
    offer = world.offer()
    with pytest.raises(StaleEpoch):
        world.accept(offer, OTHER_AGENT)
    assert world.accept(offer).state is JobState.ACCEPTED


def test_an_offer_that_ran_out_is_made_again_and_the_old_one_is_stale(world: World) -> None:
    world.submit()
    old = world.offer()
    world.clock.move(OFFER_TIME)
    world.desk.reaper.tick()
    new = world.offer(OTHER_AGENT)
    assert (new.job, new.epoch) == (old.job, 2)
    before = world.job(old.job)
    with pytest.raises(StaleEpoch):
        world.accept(old)
    with pytest.raises(StaleEpoch):
        world.report(old, "started")
    with pytest.raises(StaleEpoch):
        world.verdict(old, "refused")
    assert world.job(old.job) == before


def test_an_offer_may_be_accepted_late_while_nobody_took_it_back(world: World) -> None:
    world.submit()
    offer = world.offer()
    world.clock.move(OFFER_TIME * 2)
    assert world.accept(offer).state is JobState.ACCEPTED


def test_steps_are_taken_in_order_and_repeats_are_skipped(world: World) -> None:
    offer = world.held()
    world.report(offer, "started")
    world.report(offer, "started", "ended")
    assert world.report(offer, "started", "ended").state is JobState.RETURNING
    states = [state for _, state in world.store.ledger.history(offer.job)]
    assert states[-3:] == [JobState.ACCEPTED, JobState.RUNNING, JobState.RETURNING]


def test_a_job_that_did_not_start_cannot_end(world: World) -> None:
    with pytest.raises(InvalidTransition):
        world.report(world.held(), "ended")


@pytest.mark.parametrize(("word", "state"), [("succeeded", "succeeded"), ("failed", "failed")])
def test_a_command_that_ran_returns(world: World, word: str, state: str) -> None:
    job = world.verdict(world.ended(), word, tree="0" * 64)
    assert (job.state, job.result, job.result_tree) == (JobState(state), b"an outcome", "0" * 64)


@pytest.mark.parametrize(
    ("word", "state"),
    [("unable", "failed"), ("refused", "refused"), ("cancelled", "cancelled"), ("lost", "lost")],
)
def test_a_held_job_ends_as_its_site_says(world: World, word: str, state: str) -> None:
    assert world.verdict(world.held(), word).state is JobState(state)


def test_an_offered_job_can_be_refused(world: World) -> None:
    world.submit()
    assert world.verdict(world.offer(), "refused").state is JobState.REFUSED


def test_steps_not_yet_told_may_come_with_the_verdict(world: World) -> None:
    offer = world.held()
    done = world.verdict(offer, steps=["started", "ended"])
    assert done.state is JobState.SUCCEEDED
    assert world.verdict(offer, steps=["started", "ended"]) == done


def test_a_result_is_not_taken_before_all_its_chunks_are_here(world: World) -> None:
    offer = world.ended()
    world.desk.chunks.missing(world.claim(offer), offer.job, [a_chunk("output")[0]])
    with pytest.raises(Conflict, match="outputs_missing"):
        world.verdict(offer)
    assert world.job(offer.job).state is JobState.RETURNING
    world.put(world.claim(offer), world.job(offer.job), ["output"])
    assert world.verdict(offer).state is JobState.SUCCEEDED


@pytest.mark.parametrize(
    "changes", [{"result": b"another"}, {"tree": "1" * 64}, {"verdict": "failed"}]
)
def test_one_verdict_is_kept_and_another_is_a_conflict(
    world: World, changes: dict[str, Any]
) -> None:
    """P4: the commit is keyed by job, epoch and tree."""
    offer = world.ended()
    done = world.verdict(offer, tree="0" * 64)
    assert world.verdict(offer, tree="0" * 64) == done
    with pytest.raises(InvalidTransition):
        world.verdict(offer, **({"tree": "0" * 64} | changes))
    assert world.job(offer.job) == done


def test_a_cancel_is_told_to_the_agent_that_holds_the_job_until_it_has_heard(world: World) -> None:
    offer = world.held()
    other = world.held()
    world.desk.submissions.cancel("alice", offer.job)
    holds = [offer.job, other.job]
    assert world.poll(free=0, holds=holds).cancel == [offer.job]
    assert world.poll(free=0, holds=holds, cancelling=[offer.job]).cancel == []
    assert world.poll(free=0, holds=[other.job]).cancel == []
    world.verdict(offer, "cancelled")
    assert world.poll(free=0, holds=holds).cancel == []


def test_another_sites_job_does_not_exist(world: World) -> None:
    offer = world.held()
    message = Accept(epoch=offer.epoch, instance=AGENT)
    with pytest.raises(NotFound):
        world.desk.offers.accept("two", offer.job, message)
    poll = Poll(instance=AGENT, free=0, holds=[offer.job])
    world.desk.submissions.cancel("alice", offer.job)
    assert world.desk.offers.look("two", poll).cancel == []


def test_a_job_declared_lost_by_a_person_stays_lost(world: World) -> None:
    """P2: one fate."""
    offer = world.ended()
    with pytest.raises(InvalidTransition):
        world.desk.sites.lost(offer.job, "operator")
    held = world.held()
    lost = world.desk.sites.lost(held.job, "operator")
    assert (lost.state, lost.lost_by) == (JobState.LOST, "operator")
    assert world.desk.sites.lost(held.job, "operator") == lost
    with pytest.raises(InvalidTransition):
        world.verdict(held, "failed")
    assert world.job(held.job) == lost
