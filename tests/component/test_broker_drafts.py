"""Drafts whose request comes later: who may open one, what it may do, and what it never becomes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from sekisho.broker.chunks import Claim
from sekisho.broker.policy import Quota
from sekisho.broker.ports import Tenant
from sekisho.domain.errors import Conflict, NotFound, QuotaExceeded, Refused
from sekisho.domain.job import Job, JobState
from sekisho.domain.limits import DRAFT_TIME, EARLY_BYTES, QUEUE_TIME
from sekisho.wire.frames import Chunk, Frame, digest_of
from sekisho.wire.v1 import OpenDraft, SubmitJob
from tests.component.broker_world import World, a_submission
from tests.world import a_chunk, an_id

ALICE = Claim(tenant=Tenant(submitter="alice"))


@pytest.fixture
def world() -> World:
    return World()


def opened(world: World, user: str = "alice", *, site: str = "one", job: str = "") -> Job:
    return world.desk.submissions.open(user, OpenDraft(id=job or an_id("job"), site=site))[0]


def described(world: World, draft: Job, **changes: object) -> Job:
    message: SubmitJob = a_submission(id=draft.id, has_inputs=True, **changes)
    return world.desk.submissions.submit("alice", message)[0]


def test_a_draft_takes_inputs_then_its_request_then_is_queued(world: World) -> None:
    draft = opened(world)
    assert (draft.state, draft.request, draft.request_digest) == (JobState.DRAFT, b"", "")
    world.put(ALICE, draft, ["mesh"])
    world.clock.move(timedelta(minutes=1))
    job = described(world, draft, request=b"solve it", queue_s=3600)
    assert (job.state, job.request) == (JobState.DRAFT, b"solve it")
    assert job.expires_at == world.clock.now() + timedelta(hours=1)
    assert world.desk.submissions.start("alice", draft.id).state is JobState.QUEUED
    assert world.offer().request == b"solve it"


def test_opening_again_is_answered_with_the_draft_or_with_what_became_of_it(world: World) -> None:
    message = OpenDraft(id=an_id("job"), site="one")
    first, new = world.desk.submissions.open("alice", message)
    assert new
    assert world.desk.submissions.open("alice", message) == (first, False)
    job = described(world, first)
    assert world.desk.submissions.open("alice", message) == (job, False)
    queued = world.desk.submissions.start("alice", job.id)
    assert world.desk.submissions.open("alice", message) == (queued, False)


def test_describing_again_is_answered_the_same(world: World) -> None:
    draft = opened(world)
    assert described(world, draft) == described(world, draft)


def test_a_request_that_is_there_is_not_replaced(world: World) -> None:
    draft = opened(world)
    job = described(world, draft, request=b"one")
    with pytest.raises(Conflict, match="different_request"):
        described(world, draft, request=b"two")
    assert world.job(draft.id) == job


def test_without_a_request_nothing_starts_and_nothing_is_told_or_offered(world: World) -> None:
    """Kills: a job that reaches a site without saying what it is."""
    draft = opened(world)
    much = [Chunk(digest_of(str(n).encode()), EARLY_BYTES // 8) for n in range(16)]
    world.desk.chunks.missing(ALICE, draft.id, much)
    with pytest.raises(Conflict, match="not_described"):
        world.desk.submissions.start("alice", draft.id)
    answer = world.poll(coming=[])
    assert (answer.offers, answer.coming) == ([], [])
    described(world, draft)
    world.desk.chunks.missing(ALICE, draft.id, much)
    assert [coming.job for coming in world.poll(coming=[]).coming] == [draft.id]


@pytest.mark.parametrize("site", ["two", "nowhere"])
def test_a_site_that_does_not_serve_the_user_takes_no_draft(world: World, site: str) -> None:
    with pytest.raises(NotFound, match=r"site\.not_found"):
        opened(world, site=site)


def test_another_site_or_another_user_cannot_have_the_draft(world: World) -> None:
    draft = opened(world, "bob")
    for user, site in (("bob", "two"), ("alice", "one")):
        with pytest.raises(Conflict, match="different_request"):
            opened(world, user, site=site, job=draft.id)
        message = a_submission(id=draft.id, site=site, has_inputs=True)
        with pytest.raises(Conflict, match="different_request"):
            world.desk.submissions.submit(user, message)
    assert world.job(draft.id) == draft


def test_who_is_not_served_any_more_cannot_describe(world: World) -> None:
    draft = opened(world)
    world.desk.sites.switch("one", disabled=True)
    with pytest.raises(Refused, match=r"site\.disabled"):
        described(world, draft)
    world.desk.sites.switch("one", disabled=False)
    world.desk.sites.serve("one", frozenset({"bob"}))
    with pytest.raises(NotFound, match=r"site\.not_found"):
        described(world, draft)


def test_a_draft_counts_as_a_job_and_its_inputs_count_as_stored(world: World) -> None:
    quota = Quota(live_jobs=1, stored_bytes=10)
    world.policy.value = replace(world.policy.value, submitter=quota)
    draft = opened(world)
    with pytest.raises(QuotaExceeded):
        opened(world)
    with pytest.raises(QuotaExceeded):
        world.put(ALICE, draft, ["more than ten bytes"])


def test_nobody_waits_for_a_request_for_ever(world: World) -> None:
    draft = opened(world)
    world.clock.move(DRAFT_TIME + timedelta(seconds=1))
    world.desk.reaper.expire()
    assert world.job(draft.id).state is JobState.EXPIRED
    assert DRAFT_TIME < QUEUE_TIME


def test_a_draft_can_be_cancelled_and_then_neither_described_nor_filled(world: World) -> None:
    draft = opened(world)
    world.desk.submissions.cancel("alice", draft.id)
    with pytest.raises(Conflict):
        described(world, draft)
    with pytest.raises(Conflict):
        world.put(ALICE, draft, ["mesh"])


def test_declaring_some_again_with_others_counts_only_the_others(world: World) -> None:
    """Kills: what was sent ahead counted twice against every quota when all is asked for."""
    draft = opened(world)
    world.policy.value = replace(world.policy.value, job_bytes=10)
    one, other = a_chunk("12345"), a_chunk("54321")
    world.desk.chunks.missing(ALICE, draft.id, [one[0]])
    world.desk.chunks.store(draft, [Frame(one[0].digest, one[1])])
    missing = world.desk.chunks.missing(ALICE, draft.id, [one[0], other[0], other[0]])
    assert set(missing) == {other[0].digest}
    with pytest.raises(QuotaExceeded):
        world.desk.chunks.missing(ALICE, draft.id, [one[0], a_chunk("x")[0]])
