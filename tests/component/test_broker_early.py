"""Drafts whose inputs are being sent: whom the broker tells of them, and who may read what."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from sekisho.broker.arriving import Arriving
from sekisho.broker.chunks import Claim
from sekisho.broker.ports import Tenant
from sekisho.domain.errors import InvalidTransition, NotFound
from sekisho.domain.job import Job
from sekisho.domain.limits import EARLY_BYTES, MAX_COMING, MIB
from sekisho.wire.frames import Chunk, Frame, digest_of
from sekisho.wire.v1 import Poll, PollAnswer
from tests.component.broker_world import AGENT, OTHER_AGENT, World
from tests.world import a_chunk

ALICE = Claim(tenant=Tenant(submitter="alice"))
MUCH = [Chunk(digest_of(str(n).encode()), MIB // 2) for n in range(2 * EARLY_BYTES // MIB)]


@pytest.fixture
def world() -> World:
    return World()


def a_draft(world: World, chunks: list[Chunk] = MUCH) -> Job:
    """Return a draft whose sender has asked what is missing, and nothing more."""
    job = world.submit(has_inputs=True)
    world.desk.chunks.missing(ALICE, job.id, chunks)
    return job


def told(world: World, *heard: str, instance: str = AGENT, free: int = 1) -> list[str]:
    answer = world.poll(instance, free=free, coming=list(heard))
    return [coming.job for coming in answer.coming]


def gone(world: World, *heard: str) -> list[str]:
    return world.poll(free=0, coming=list(heard)).gone


# --- who is told -----------------------------------------------------------------------------


def test_an_agent_is_told_what_it_needs_to_decide(world: World) -> None:
    job = a_draft(world)
    (coming,) = world.poll(coming=[]).coming
    assert (coming.job, coming.submitter, coming.request) == (job.id, "alice", job.request)
    assert world.job(job.id) == job  # nothing was offered


def test_what_an_agent_has_heard_of_is_not_told_again(world: World) -> None:
    job = a_draft(world)
    assert told(world, job.id) == []
    assert told(world) == [job.id]


def test_an_old_agent_is_not_told(world: World) -> None:
    a_draft(world)
    answer = world.poll()
    assert (answer.coming, answer.gone) == ([], [])


def test_without_room_nothing_is_told(world: World) -> None:
    job = a_draft(world)
    assert told(world, free=0) == []
    assert told(world) == [job.id]


def test_a_site_that_is_switched_off_is_told_nothing(world: World) -> None:
    a_draft(world)
    world.desk.sites.switch("one", disabled=True)
    assert told(world) == []


def test_one_agent_of_a_site_is_told_and_told_again_after_its_restart(world: World) -> None:
    job = a_draft(world)
    assert told(world) == [job.id]
    assert told(world, instance=OTHER_AGENT) == []
    assert told(world) == [job.id]


def test_another_site_is_not_told(world: World) -> None:
    a_draft(world)
    message = Poll(instance=AGENT, free=1, coming=[])
    assert world.desk.offers.look("two", message).coming == []


def test_little_is_not_told(world: World) -> None:
    a_draft(world, MUCH[:-1])
    assert told(world) == []


def test_a_draft_that_was_cancelled_or_started_is_not_told(world: World) -> None:
    first = a_draft(world)
    world.desk.submissions.cancel("alice", first.id)
    assert told(world) == []
    second = a_draft(world)
    assert told(world) == [second.id]


def test_what_is_told_at_a_time_is_bounded(world: World) -> None:
    jobs = [a_draft(world).id for _ in range(MAX_COMING + 5)]
    assert told(world) == jobs[:MAX_COMING]
    assert told(world, *jobs[:MAX_COMING]) == []
    assert told(world, *jobs[: MAX_COMING - 2]) == jobs[MAX_COMING - 2 : MAX_COMING]


# --- what is gone ----------------------------------------------------------------------------


def test_a_draft_is_gone_when_it_was_cancelled(world: World) -> None:
    job = a_draft(world)
    assert gone(world, job.id) == []
    world.desk.submissions.cancel("alice", job.id)
    assert gone(world, job.id) == [job.id]


def test_a_draft_is_gone_when_its_time_is_over(world: World) -> None:
    job = a_draft(world)
    world.clock.move(timedelta(days=2))
    world.desk.reaper.expire()
    assert gone(world, job.id) == [job.id]


def test_a_job_is_gone_when_an_agent_has_it_and_not_before(world: World) -> None:
    job = world.draft("a")
    world.desk.submissions.start("alice", job.id)
    assert gone(world, job.id) == []
    offer = world.offer(OTHER_AGENT)
    assert gone(world, job.id) == []
    world.accept(offer, OTHER_AGENT)
    assert gone(world, job.id) == [job.id]


def test_what_nobody_knows_is_gone(world: World) -> None:
    (other,) = [world.submit("bob", site="two", has_inputs=True)]
    assert gone(world, other.id) == [other.id]


# --- what may be read ------------------------------------------------------------------------


def test_only_declared_chunks_that_are_stored_have_arrived(world: World) -> None:
    job, foreign = world.draft("a"), world.draft("b")
    (a, _), (b, data), (c, _) = (a_chunk(text) for text in "abc")
    world.desk.chunks.missing(ALICE, job.id, [c])
    asked = [a.digest, b.digest, c.digest, digest_of(b"undeclared")]
    opened = world.desk.chunks.waiting("one", job.id)
    assert world.desk.chunks.arrived(opened, asked, 1) == [a]
    with pytest.raises(NotFound):
        world.desk.chunks.fetch(opened, [b.digest])
    other = world.desk.chunks.waiting("one", foreign.id)
    _, found = world.desk.chunks.fetch(other, [b.digest])
    assert [frame.payload for frame in found] == [data]


def test_another_sites_job_does_not_exist(world: World) -> None:
    job = world.draft("a")
    with pytest.raises(NotFound):
        world.desk.chunks.waiting("two", job.id)


def test_what_an_agent_has_is_read_by_its_holder_only(world: World) -> None:
    offer = world.held()
    with pytest.raises(InvalidTransition):
        world.desk.chunks.waiting("one", offer.job)


# --- notices ---------------------------------------------------------------------------------


def test_who_waits_is_told_once_when_as_much_has_come_as_is_wanted(world: World) -> None:
    job = a_draft(world)
    arriving = world.desk.arriving
    texts = ["1" * 100, "2" * 100, "3" * 100]
    frames = [Frame(chunk.digest, data) for chunk, data in map(a_chunk, texts)]
    world.desk.chunks.missing(ALICE, job.id, [frame.chunk for frame in frames])
    opened = world.desk.chunks.waiting("one", job.id)
    asked = [frame.digest for frame in frames]
    size = len(frames[0].payload)
    assert world.desk.chunks.arrived(opened, asked, 2 * size) == []
    assert [arriving.stored(job.id, size) for _ in range(3)] == [False, True, False]


def test_what_came_while_somebody_looked_is_not_missed() -> None:
    arriving = Arriving()
    arriving.begun("one", "job")
    before = arriving.so_far("job")
    assert not arriving.stored("job", 100)  # nobody waits yet
    assert arriving.wanted("job", before + 100)
    assert not arriving.wanted("job", before + 101)
    assert arriving.stored("job", 1)


def test_what_is_remembered_is_bounded() -> None:
    arriving = Arriving()
    for n in range(5000):
        arriving.begun("one", str(n))
    found = arriving.of("one", AGENT, heard=[])
    assert found == [str(n) for n in range(5000 - 4096, 5000)]


def test_a_job_that_is_not_remembered_is_nobodys_notice() -> None:
    arriving = Arriving()
    assert not arriving.stored("job", 1 << 40)
    assert not arriving.wanted("job", 0)
    assert arriving.so_far("job") == 0


# --- old and new -----------------------------------------------------------------------------


class OldPoll(msgspec.Struct, kw_only=True):
    """What a broker of before reads of a poll."""

    instance: str
    free: int


class OldAnswer(msgspec.Struct, kw_only=True):
    """What an agent of before reads of an answer."""

    offers: list[msgspec.Raw] = []
    cancel: list[str] = []


def test_old_and_new_read_each_other(world: World) -> None:
    poll = msgspec.json.encode(Poll(instance=AGENT, free=3, coming=[]))
    assert msgspec.json.decode(poll, type=OldPoll).free == 3
    a_draft(world)
    answer = msgspec.json.encode(world.poll(coming=[]))
    assert msgspec.json.decode(answer, type=OldAnswer).offers == []
    assert msgspec.json.decode(b"{}", type=PollAnswer).coming == []
    old = msgspec.json.encode(OldPoll(instance=AGENT, free=1))
    assert msgspec.json.decode(old, type=Poll).coming is None
