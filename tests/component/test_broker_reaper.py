"""What time does to jobs, and what it must not do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from structlog.testing import capture_logs

from sekisho.adapters.blobs_memory import MemoryBlobs
from sekisho.broker.heard import Heard
from sekisho.domain.errors import NotFound, SyncFailed, Unavailable
from sekisho.domain.job import Attention, JobState
from sekisho.domain.limits import DRAFT_TIME, OFFER_TIME
from sekisho.wire.frames import FRAME_HEAD_BYTES
from sekisho.wire.v1 import Poll
from tests.component.broker_world import AGENT, OTHER_AGENT, World
from tests.world import a_chunk

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)


@pytest.fixture
def world() -> World:
    return World()


def test_a_queue_that_nobody_serves_ends_expired_on_time(world: World) -> None:
    job = world.submit(queue_s=60.0)
    world.clock.move(timedelta(seconds=59))
    world.desk.reaper.tick()
    assert world.job(job.id).state is JobState.QUEUED
    world.clock.move(SECOND)
    world.desk.reaper.tick()
    assert world.job(job.id).state is JobState.EXPIRED


def test_a_draft_that_is_never_started_ends_expired(world: World) -> None:
    job = world.submit(has_inputs=True)
    world.clock.move(DRAFT_TIME)
    world.desk.reaper.tick()
    assert world.job(job.id).state is JobState.EXPIRED


def test_an_offer_goes_back_to_the_queue_and_then_expires_if_it_is_too_old(world: World) -> None:
    job = world.submit(queue_s=30.0)
    world.offer()
    world.clock.move(OFFER_TIME)
    world.desk.reaper.tick()
    assert world.job(job.id).state is JobState.QUEUED
    world.desk.reaper.tick()
    assert world.job(job.id).state is JobState.EXPIRED


def test_the_jobs_of_a_silent_site_are_flagged_until_it_is_heard(world: World) -> None:
    poll = Poll(instance=AGENT, free=1)
    world.desk.offers.seen("one", poll)
    offer, reaper = world.held(), world.desk.reaper
    world.clock.move(timedelta(minutes=10))
    reaper.tick()
    assert world.job(offer.job).attention is None
    world.clock.move(SECOND)
    reaper.tick()
    flagged = world.job(offer.job)
    assert (flagged.attention, flagged.state) == (Attention.SITE_UNREACHABLE, JobState.ACCEPTED)
    with capture_logs() as told:
        reaper.tick()
    assert (world.job(offer.job), told) == (flagged, [])
    world.desk.offers.seen("one", poll)
    reaper.tick()
    assert world.job(offer.job).attention is None


def test_the_jobs_of_a_silent_agent_are_flagged_though_another_speaks_for_the_site(
    world: World,
) -> None:
    """Kills: jobs of a machine that is gone, which look alive for as long as its site has others.

    Kills: flags taken away because the site, or a new broker, was heard, and not the agent.
    """
    offer, reaper = world.held(), world.desk.reaper
    world.desk.offers.seen("one", Poll(instance=AGENT, free=1))

    def pass_by(minutes: int, *speaking: str) -> Attention | None:
        for _ in range(minutes):
            world.clock.move(60 * SECOND)
            for instance in speaking:
                world.desk.offers.seen("one", Poll(instance=instance, free=1))
            reaper.tick()
        return world.job(offer.job).attention

    assert pass_by(20, AGENT, OTHER_AGENT) is None
    assert pass_by(10, OTHER_AGENT) is None
    assert pass_by(1, OTHER_AGENT) is Attention.SITE_UNREACHABLE
    assert pass_by(15) is Attention.SITE_UNREACHABLE
    assert pass_by(1, OTHER_AGENT) is Attention.SITE_UNREACHABLE
    world.desk = replace(world.desk, heard=Heard())
    reaper = world.desk.reaper
    assert pass_by(1, OTHER_AGENT) is Attention.SITE_UNREACHABLE
    assert pass_by(15, OTHER_AGENT) is Attention.SITE_UNREACHABLE
    assert pass_by(1, OTHER_AGENT, AGENT) is None


def test_an_agent_that_a_new_broker_never_heard_is_silent_from_its_start(world: World) -> None:
    """Kills: jobs of a machine that went away with the old broker, which look alive for ever."""
    offer, reaper = world.held(), world.desk.reaper
    flags = []
    for _ in range(11):
        world.clock.move(60 * SECOND)
        world.desk.offers.seen("one", Poll(instance=OTHER_AGENT, free=1))
        reaper.tick()
        flags.append(world.job(offer.job).attention)
    assert flags == [None] * 10 + [Attention.SITE_UNREACHABLE]


def test_agents_that_are_gone_are_forgotten(world: World) -> None:
    """Kills: a broker that remembers every agent that there ever was."""
    reaper = world.desk.reaper
    world.desk.offers.seen("one", Poll(instance=OTHER_AGENT, free=1))
    world.clock.move(timedelta(minutes=10))
    reaper.tick()
    assert world.desk.heard.last("one", OTHER_AGENT) is not None
    world.clock.move(60 * SECOND)
    reaper.tick()
    assert world.desk.heard.last("one", OTHER_AGENT) is None


def test_a_new_reaper_flags_at_once_and_takes_old_flags_away(world: World) -> None:
    offer = world.held()
    world.clock.move(timedelta(hours=1))
    world.desk.reaper.tick()  # a new one flags at once when the whole site is silent
    assert world.job(offer.job).attention is Attention.SITE_UNREACHABLE
    world.desk.offers.seen("one", Poll(instance=AGENT, free=1))
    world.desk.reaper.tick()
    assert world.job(offer.job).attention is None


@pytest.mark.parametrize(("received", "days"), [(True, 7), (False, 60)])
def test_an_ended_job_is_kept_for_its_retention(world: World, received: bool, days: int) -> None:
    offer = world.ended()
    world.verdict(offer)
    if received:
        world.desk.submissions.received("alice", offer.job)
    world.clock.move(timedelta(days=days))
    world.desk.reaper.tick()
    assert world.job(offer.job).state is JobState.SUCCEEDED
    world.clock.move(SECOND)
    world.desk.reaper.tick()
    with pytest.raises(NotFound):
        world.job(offer.job)


def test_chunks_are_collected_when_no_job_needs_them_and_they_are_old(world: World) -> None:
    world.blobs = MemoryBlobs(now=world.clock.now)
    world = World(clock=world.clock, blobs=world.blobs)
    kept = world.draft("kept")
    dropped = world.draft("dropped")
    world.desk.submissions.cancel("alice", dropped.id)
    world.store.retention.purge(dropped.id)
    world.clock.move(DAY - SECOND)
    assert world.desk.reaper.collect() == 0
    world.clock.move(2 * SECOND)
    assert world.desk.reaper.collect() == 1
    digests = [a_chunk(text)[0].digest for text in ("kept", "dropped")]
    assert world.blobs.missing("one/alice", digests) == digests[1:]
    assert world.blobs.read("one/alice", digests[0]).payload == b"kept"
    assert world.desk.chunks.fetch(kept, digests[:1])[0] == FRAME_HEAD_BYTES + 4


def test_chunks_are_collected_again_and_again(world: World) -> None:
    """Kills: a broker that collects when it starts, and fills its disk from then on."""
    world = World(clock=world.clock, blobs=MemoryBlobs(now=world.clock.now))
    reaper = world.desk.reaper  # one for as long as a broker serves
    reaper.tick()
    for text in ("one", "two"):
        job = world.draft(text)
        world.desk.submissions.cancel("alice", job.id)
        world.store.retention.purge(job.id)
        world.clock.move(DAY + SECOND)
        reaper.tick()
        digest = a_chunk(text)[0].digest
        assert world.blobs.missing("one/alice", [digest]) == [digest]


def test_what_is_looked_at_seldom_is_not_looked_at_in_every_pass(world: World) -> None:
    """Kills: all held jobs and all tokens read every five seconds."""
    passes: list[datetime] = []
    reaper = replace(world.desk.reaper, orphans=lambda: passes.append(world.clock.now()))
    begun = world.clock.now()
    for seconds in (0, 5, 54, 1, 59, 1):
        world.clock.move(seconds * SECOND)
        reaper.tick()
    assert passes == [begun, begun + 60 * SECOND, begun + 120 * SECOND]


class BrokenListing(MemoryBlobs):
    """Blobs whose list breaks off after the first entry."""

    def older(self, before: datetime) -> Iterator[tuple[str, str]]:
        yield from list(super().older(before))[:1]
        raise Unavailable


def test_a_listing_error_deletes_nothing(world: World) -> None:
    """D7: an error is not an empty list."""
    world = World(clock=world.clock, blobs=BrokenListing(now=world.clock.now))
    job = world.draft("a", "b")
    world.desk.submissions.cancel("alice", job.id)
    world.store.retention.purge(job.id)
    world.clock.move(2 * DAY)
    with pytest.raises(Unavailable):
        world.desk.reaper.collect()
    digests = [a_chunk(text)[0].digest for text in ("a", "b")]
    assert world.blobs.missing("one/alice", digests) == []
    world.desk.reaper.tick()  # and the pass goes on all the same


class Unsynced(MemoryBlobs):
    """Blobs on a disk that loses writes."""

    def older(self, before: datetime) -> Iterator[tuple[str, str]]:
        raise SyncFailed(before=before)


def test_a_failed_sync_is_not_shrugged_off(world: World) -> None:
    world = World(clock=world.clock, blobs=Unsynced())
    with pytest.raises(SyncFailed):
        world.desk.reaper.tick()
