"""What a submitter can rely on: P1's rules of submission, quotas, cancel, received."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from sekisho.broker.chunks import Claim
from sekisho.broker.policy import Quota
from sekisho.broker.ports import EVERYONE, JobFilter, Tenant
from sekisho.broker.sites import CONNECTED_FOR
from sekisho.domain.errors import (
    Conflict,
    InvalidTransition,
    NotFound,
    QuotaExceeded,
    Refused,
    Unavailable,
)
from sekisho.domain.job import InputsComplete, Job, JobState, apply
from sekisho.domain.limits import QUEUE_TIME
from sekisho.wire.v1 import Poll
from tests.component.broker_world import AGENT, World, a_submission
from tests.world import NOW, a_chunk

ALICE = Claim(tenant=Tenant(submitter="alice"))


@pytest.fixture
def world() -> World:
    return World()


def test_a_job_without_inputs_is_queued_at_once(world: World) -> None:
    assert world.submit().state is JobState.QUEUED


def test_a_job_with_inputs_waits_for_them(world: World) -> None:
    assert world.submit(has_inputs=True).state is JobState.DRAFT


def test_a_repeated_submission_is_answered_with_the_same_job(world: World) -> None:
    message = a_submission()
    first = world.desk.submissions.submit("alice", message)
    assert first[1]
    assert world.desk.submissions.submit("alice", message) == (first[0], False)


def test_a_repeat_is_answered_even_when_a_new_job_would_be_refused(world: World) -> None:
    message = a_submission()
    kept, _ = world.desk.submissions.submit("alice", message)
    world.desk.sites.switch("one", disabled=True)
    world.policy.value = replace(world.policy.value, site=Quota(live_jobs=0, stored_bytes=0))
    assert world.desk.submissions.submit("alice", message) == (kept, False)


def test_another_request_under_the_same_id_is_a_conflict(world: World) -> None:
    message = a_submission()
    world.desk.submissions.submit("alice", message)
    other = a_submission(id=message.id, request=b"another")
    with pytest.raises(Conflict, match="different_request"):
        world.desk.submissions.submit("alice", other)


def test_another_users_id_is_a_conflict_and_shows_nothing(world: World) -> None:
    message = a_submission()
    world.desk.submissions.submit("alice", message)
    with pytest.raises(Conflict, match="different_request"):
        world.desk.submissions.submit("bob", message)


def test_a_forgotten_job_is_not_run_a_second_time(world: World) -> None:
    message = a_submission()
    world.desk.submissions.submit("alice", message)
    world.desk.submissions.cancel("alice", message.id)
    world.clock.move(timedelta(days=61))
    world.desk.reaper.forget()
    with pytest.raises(Conflict, match="forgotten"):
        world.desk.submissions.submit("alice", message)


@pytest.mark.parametrize("site", ["two", "nowhere"])
def test_a_site_that_does_not_serve_the_user_does_not_exist(world: World, site: str) -> None:
    with pytest.raises(NotFound) as caught:
        world.submit(site=site)
    assert (caught.value.code, caught.value.params) == ("site.not_found", {"site": site})


def test_a_disabled_site_takes_no_new_jobs(world: World) -> None:
    world.desk.sites.switch("one", disabled=True)
    with pytest.raises(Refused, match=r"site\.disabled"):
        world.submit()


@pytest.mark.parametrize("kind", ["site", "submitter"])
def test_the_number_of_live_jobs_is_bounded(world: World, kind: str) -> None:
    quota = Quota(live_jobs=2, stored_bytes=1000)
    world.policy.value = replace(world.policy.value, **{kind: quota})  # type: ignore[arg-type]
    first = world.submit()
    world.submit()
    with pytest.raises(QuotaExceeded) as caught:
        world.submit()
    assert caught.value.params["kind"] == kind
    world.desk.submissions.cancel("alice", first.id)
    assert world.submit().state is JobState.QUEUED


@pytest.mark.parametrize("kind", ["site", "submitter"])
def test_whoever_holds_more_bytes_than_allowed_by_now_submits_nothing_new(
    world: World, kind: str
) -> None:
    world.draft("12345")
    for allowed in (5, 4):
        quota = Quota(live_jobs=10, stored_bytes=allowed)
        world.policy.value = replace(world.policy.value, **{kind: quota})  # type: ignore[arg-type]
        if allowed == 5:
            world.submit()
            continue
        with pytest.raises(QuotaExceeded) as caught:
            world.submit()
        assert (caught.value.code, caught.value.params["kind"]) == ("quota.bytes", kind)


def test_the_wait_for_an_agent_is_the_users_choice_within_the_operators_bound(
    world: World,
) -> None:
    now = world.clock.now()
    assert world.submit().expires_at == now + QUEUE_TIME
    assert world.submit(queue_s=60.0).expires_at == now + timedelta(minutes=1)
    world.policy.value = replace(world.policy.value, queue_time=timedelta(seconds=10))
    assert world.submit(queue_s=60.0).expires_at == now + timedelta(seconds=10)


def test_a_draft_starts_when_all_that_it_declared_is_stored(world: World) -> None:
    job = world.draft("a", "b")
    assert world.desk.submissions.start("alice", job.id).state is JobState.QUEUED


def test_a_draft_with_a_missing_chunk_does_not_start(world: World) -> None:
    job = world.draft("a")
    world.desk.chunks.missing(ALICE, job.id, [a_chunk("never sent")[0]])
    with pytest.raises(Conflict, match="inputs_missing"):
        world.desk.submissions.start("alice", job.id)
    assert world.job(job.id).state is JobState.DRAFT


def test_a_repeated_start_changes_nothing(world: World) -> None:
    job = world.draft("a")
    started = world.desk.submissions.start("alice", job.id)
    assert world.desk.submissions.start("alice", job.id) == started
    offer = world.offer()
    world.accept(offer)
    assert world.desk.submissions.start("alice", job.id).state is JobState.ACCEPTED


def test_an_ended_job_does_not_start(world: World) -> None:
    job = world.draft("a")
    world.desk.submissions.cancel("alice", job.id)
    with pytest.raises(InvalidTransition):
        world.desk.submissions.start("alice", job.id)


def test_cancel_ends_a_job_that_nobody_has(world: World) -> None:
    waiting = [world.submit(has_inputs=True), world.submit(), world.submit()]
    offered = world.offer()
    for job in waiting:
        cancelled = world.desk.submissions.cancel("alice", job.id)
        assert cancelled.state is JobState.CANCELLED
        assert world.desk.submissions.cancel("alice", job.id) == cancelled
    with pytest.raises(InvalidTransition):
        world.accept(offered)


def test_cancel_of_a_held_job_is_a_request_and_the_true_outcome_is_told(world: World) -> None:
    offer = world.ended()
    asked = world.desk.submissions.cancel("alice", offer.job)
    assert (asked.state, asked.cancel_requested) == (JobState.RETURNING, True)
    assert world.desk.submissions.cancel("alice", offer.job) == asked
    assert world.verdict(offer).state is JobState.SUCCEEDED


def test_cancel_leaves_an_ended_job_as_it_is(world: World) -> None:
    offer = world.ended()
    done = world.verdict(offer)
    assert world.desk.submissions.cancel("alice", offer.job) == done


def test_received_is_for_ended_jobs_and_the_first_time_counts(world: World) -> None:
    offer = world.ended()
    with pytest.raises(InvalidTransition):
        world.desk.submissions.received("alice", offer.job)
    world.verdict(offer)
    first = world.desk.submissions.received("alice", offer.job)
    world.clock.move(timedelta(hours=1))
    assert world.desk.submissions.received("alice", offer.job) == first


@pytest.mark.parametrize("call", ["start", "cancel", "received", "view"])
def test_another_users_job_does_not_exist(world: World, call: str) -> None:
    job = world.submit()
    with pytest.raises(NotFound):
        getattr(world.desk.submissions, call)("bob", job.id)
    assert world.job(job.id) == job


def test_a_list_holds_the_callers_jobs_only(world: World) -> None:
    mine, _ = world.submit(), world.submit("bob")
    everything = JobFilter(submitter="bob")
    page = world.desk.submissions.page("alice", everything, after=None, limit=10)
    assert [job.id for job in page] == [mine.id]


def test_sites_show_a_user_their_own_jobs_only(world: World) -> None:
    world.held()
    world.submit("bob")
    world.accept(world.offer())
    world.submit()
    world.submit("bob")
    (site,) = world.desk.sites.serving("alice")
    assert (site.id, site.waiting, site.active) == ("one", 1, 1)
    assert [site.id for site in world.desk.sites.serving("bob")] == ["one", "two"]
    assert world.desk.sites.serving("carol") == []


def test_a_site_is_connected_for_a_while_after_its_agent_asked(world: World) -> None:
    def connected() -> bool:
        return world.desk.sites.serving("alice")[0].connected

    assert not connected()
    world.desk.offers.seen("one", Poll(instance=AGENT, free=0))
    world.clock.move(CONNECTED_FOR)
    assert connected()
    world.clock.move(timedelta(seconds=1))
    assert not connected()


def test_whoever_is_overtaken_decides_anew_on_what_is_there_by_then(world: World) -> None:
    """Kills: a change that is kept over another's, or told although it was not kept."""
    job = world.draft()
    seen: list[JobState] = []

    def decide(there: Job) -> Job:
        seen.append(there.state)
        if len(seen) == 1:
            world.desk.submissions.cancel("alice", job.id)
        return there if there.state.terminal else apply(there, InputsComplete(at=NOW))

    told = world.desk.jobs.change(job.id, EVERYONE, decide)
    assert seen == [JobState.DRAFT, JobState.CANCELLED]
    assert told == world.job(job.id)
    assert told.state is JobState.CANCELLED


def test_whoever_is_always_overtaken_is_asked_to_come_again(world: World) -> None:
    job = world.draft()

    def touched(there: Job) -> Job:
        return replace(there, version=there.version + 1)

    def decide(there: Job) -> Job:
        world.desk.jobs.change(job.id, EVERYONE, touched)
        return apply(there, InputsComplete(at=NOW))

    with pytest.raises(Unavailable, match="contended"):
        world.desk.jobs.change(job.id, EVERYONE, decide)
    assert world.job(job.id).state is JobState.DRAFT
