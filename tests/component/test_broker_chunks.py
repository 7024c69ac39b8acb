"""Chunks: declared first, bounded by every quota, and never another job's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from sekisho.adapters.blobs_memory import MemoryBlobs
from sekisho.broker.chunks import Claim
from sekisho.broker.policy import Policy, Quota
from sekisho.broker.ports import Tenant
from sekisho.domain.errors import (
    IntegrityError,
    InvalidTransition,
    NotFound,
    QuotaExceeded,
    SekishoError,
    StaleEpoch,
    StorageFull,
    UsageError,
)
from sekisho.wire.frames import Chunk, Frame
from tests.component.broker_world import AGENT, OTHER_AGENT, World
from tests.world import a_chunk

ALICE = Claim(tenant=Tenant(submitter="alice"))
BOB = Claim(tenant=Tenant(submitter="bob"))
ROOMY = Quota(live_jobs=10, stored_bytes=1000)


@pytest.fixture
def world() -> World:
    return World()


def test_inputs_come_out_as_they_went_in(world: World) -> None:
    job = world.draft("one", "two")
    digests = [a_chunk(text)[0].digest for text in ("two", "one")]
    size, chunks = world.desk.chunks.fetch(job, digests)
    sent = list(chunks)
    assert size == sum(map(len, sent))
    assert [frame.payload for frame in sent] == [b"two", b"one"]


def test_what_is_stored_is_not_missing_and_may_be_sent_again(world: World) -> None:
    job = world.draft("here")
    here, there = a_chunk("here"), a_chunk("there")
    missing = world.desk.chunks.missing(ALICE, job.id, [here[0], there[0]])
    assert missing == [there[0].digest]
    world.desk.chunks.store(job, [Frame(here[0].digest, here[1])])
    assert world.desk.chunks.missing(ALICE, job.id, [here[0]]) == []


def test_only_declared_chunks_are_stored(world: World) -> None:
    job = world.draft("declared")
    with pytest.raises(IntegrityError, match="undeclared"):
        world.desk.chunks.store(job, [Frame(a_chunk("not declared")[0].digest, b"not declared")])
    assert world.blobs.missing("one/alice", [a_chunk("not declared")[0].digest])


def test_frames_in_another_order_or_doubled_are_what_they_are(world: World) -> None:
    job = world.submit(has_inputs=True)
    texts = ("one", "two", "three")
    chunks = [a_chunk(text) for text in texts]
    world.desk.chunks.missing(ALICE, job.id, [chunk for chunk, _ in chunks])
    frames = [Frame(chunk.digest, data) for chunk, data in chunks]
    world.desk.chunks.store(job, [*reversed(frames), frames[0], frames[0]])
    _, sent = world.desk.chunks.fetch(job, [chunk.digest for chunk, _ in chunks])
    assert [frame.payload for frame in sent] == [text.encode() for text in texts]


def test_a_frame_that_another_declared_is_foreign_and_takes_its_company_down(world: World) -> None:
    theirs = world.submit("bob", has_inputs=True)
    foreign, ours = a_chunk("foreign"), a_chunk("ours")
    world.desk.chunks.missing(BOB, theirs.id, [foreign[0]])
    job = world.submit(has_inputs=True)
    world.desk.chunks.missing(ALICE, job.id, [ours[0]])
    frames = [Frame(chunk.digest, data) for chunk, data in (ours, foreign)]
    with pytest.raises(IntegrityError, match="undeclared"):
        world.desk.chunks.store(job, frames)
    for space in ("one/alice", "one/bob"):
        assert len(world.blobs.missing(space, [f.digest for f in frames])) == 2, space
    world.desk.chunks.store(job, frames[:1])  # without it all is well
    assert world.desk.chunks.missing(ALICE, job.id, [ours[0]]) == []


def test_a_chunk_of_another_job_does_not_exist(world: World) -> None:
    world.draft("secret")
    other = world.draft("public")
    for asked in (["secret"], ["public", "secret"]):
        with pytest.raises(NotFound):
            world.desk.chunks.fetch(other, [a_chunk(text)[0].digest for text in asked])


def test_a_declared_chunk_that_never_came_is_not_found(world: World) -> None:
    job = world.draft()
    world.desk.chunks.missing(ALICE, job.id, [a_chunk("absent")[0]])
    with pytest.raises(NotFound):
        world.desk.chunks.fetch(job, [a_chunk("absent")[0].digest])


def test_what_one_submitter_stored_is_missing_for_another(world: World) -> None:
    """D2: nobody learns by asking what others hold."""
    world.draft("shared text")
    theirs = world.submit("bob", has_inputs=True)
    chunk = a_chunk("shared text")[0]
    assert world.desk.chunks.missing(BOB, theirs.id, [chunk]) == [chunk.digest]


class ToldBlobs(MemoryBlobs):
    """Notes whose space was looked into."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def missing(self, space: str, digests: Sequence[str]) -> list[str]:
        self.asked.append(space)
        return super().missing(space, digests)


def test_the_time_of_an_answer_cannot_tell_what_others_hold() -> None:
    """D2: what others hold is not looked at; so neither at their site, nor at another of ours."""
    world = World(blobs=(blobs := ToldBlobs()))
    chunk = a_chunk("shared text")[0]
    for site in ("one", "two"):
        world.draft("shared text")
        assert blobs.missing("one/alice", [chunk.digest]) == []  # it is there, for whoever may ask
        theirs = world.submit("bob", has_inputs=True, site=site)
        blobs.asked.clear()
        assert world.desk.chunks.missing(BOB, theirs.id, [chunk]) == [chunk.digest]
        assert blobs.asked == [f"{site}/bob"]


def test_another_users_job_does_not_exist(world: World) -> None:
    job = world.draft("x")
    with pytest.raises(NotFound):
        world.desk.chunks.open(BOB, job.id)


@pytest.mark.parametrize(
    "changes", [{"epoch": 2}, {"epoch": None}, {"instance": OTHER_AGENT}, {"instance": None}]
)
def test_a_site_speaks_of_chunks_under_its_own_offer_only(
    world: World, changes: dict[str, Any]
) -> None:
    offer = world.held()
    assert world.desk.chunks.open(world.claim(offer), offer.job).id == offer.job
    with pytest.raises(StaleEpoch):
        world.desk.chunks.open(replace(world.claim(offer), **changes), offer.job)


def test_a_started_job_takes_no_more_inputs_but_answers_repeats(world: World) -> None:
    job = world.draft("input")
    world.desk.submissions.start("alice", job.id)
    assert world.desk.chunks.missing(ALICE, job.id, [a_chunk("input")[0]]) == []
    with pytest.raises(InvalidTransition):
        world.desk.chunks.missing(ALICE, job.id, [a_chunk("late")[0]])


def test_an_ended_job_takes_no_more_outputs_but_answers_repeats(world: World) -> None:
    offer = world.ended()
    world.put(world.claim(offer), world.job(offer.job), ["output"])
    world.verdict(offer)
    claim = world.claim(offer)
    assert world.desk.chunks.missing(claim, offer.job, [a_chunk("output")[0]]) == []
    with pytest.raises(InvalidTransition):
        world.desk.chunks.missing(claim, offer.job, [a_chunk("late")[0]])


def test_a_site_declares_nothing_before_it_has_accepted(world: World) -> None:
    world.submit()
    offer = world.offer()
    claim = Claim(tenant=Tenant(site="one"), epoch=offer.epoch, instance=AGENT)
    with pytest.raises(InvalidTransition):
        world.desk.chunks.missing(claim, offer.job, [a_chunk("early")[0]])


@pytest.mark.parametrize(
    ("policy", "error"),
    [
        (Policy(free_floor_bytes=0, job_bytes=9), QuotaExceeded),
        (Policy(free_floor_bytes=0, site=replace(ROOMY, stored_bytes=9)), QuotaExceeded),
        (Policy(free_floor_bytes=0, submitter=replace(ROOMY, stored_bytes=9)), QuotaExceeded),
        (Policy(free_floor_bytes=1 << 62), StorageFull),
    ],
)
def test_a_declaration_past_a_limit_is_refused_whole(
    world: World, policy: Policy, error: type[SekishoError]
) -> None:
    job = world.draft("12345")
    world.policy.value = policy
    with pytest.raises(error):
        world.desk.chunks.missing(ALICE, job.id, [a_chunk("67890")[0]])
    assert world.store.ledger.declared(job.id) == [a_chunk("12345")[0]]
    assert world.desk.chunks.missing(ALICE, job.id, [a_chunk("12345")[0]]) == []


def test_a_job_may_hold_as_much_as_its_limit(world: World) -> None:
    world.policy.value = Policy(free_floor_bytes=0, job_bytes=10)
    job = world.draft("12345", "67890")
    assert len(world.store.ledger.declared(job.id)) == 2


def test_a_site_out_of_room_stores_nothing(world: World) -> None:
    job = world.draft("here")
    world.policy.value = Policy(free_floor_bytes=1 << 62)
    with pytest.raises(StorageFull):
        world.desk.chunks.store(job, [Frame(a_chunk("here")[0].digest, b"here")])


def test_the_room_that_is_to_stay_is_looked_for_below_what_comes() -> None:
    """Kills: the last chunk, of whatever length, that takes what was to stay free."""
    world = World(blobs=MemoryBlobs(capacity=14))
    world.policy.value = Policy(free_floor_bytes=10)
    job = world.draft("four")
    frames = [Frame(a_chunk("four")[0].digest, b"four")]
    world.policy.value = Policy(free_floor_bytes=7)
    with pytest.raises(StorageFull):
        world.desk.chunks.store(job, frames)
    world.policy.value = Policy(free_floor_bytes=6)
    world.desk.chunks.store(job, frames)


def test_a_chunk_without_bytes_is_no_chunk(world: World) -> None:
    job = world.draft()
    with pytest.raises(UsageError):
        world.desk.chunks.missing(ALICE, job.id, [Chunk("0" * 64, 0)])


def test_traffic_is_counted(world: World) -> None:
    job = world.draft("12345")
    _, chunks = world.desk.chunks.fetch(job, [a_chunk("12345")[0].digest])
    assert len(list(chunks)) == 1
    meter = world.desk.meter
    assert meter.get("chunk_bytes", direction="in") == 5
    assert meter.get("chunk_bytes", direction="out") == 5
