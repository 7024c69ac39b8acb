"""What makes a copy of a broker one: every chunk that is read, and every chunk that a job needs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sekisho.adapters.blobs_memory import MemoryBlobs
from sekisho.broker.backup import copy_chunks, verify
from sekisho.domain.errors import Corrupt, IntegrityError, NotFound, SekishoError
from sekisho.wire.frames import Frame
from tests.component.broker_world import World
from tests.world import a_chunk

SPACE = "one/alice"
DIGEST = a_chunk("needed")[0].digest


@pytest.fixture
def world() -> World:
    return World()


def draft(world: World) -> None:
    world.draft("needed")


def queued(world: World) -> None:
    world.desk.submissions.start("alice", world.draft("needed").id)


def offered(world: World) -> None:
    queued(world)
    world.offer()


def returning(world: World) -> None:
    offer = world.ended()
    world.put(world.claim(offer), world.job(offer.job), ["needed"])


def succeeded(world: World) -> None:
    offer = world.ended()
    world.put(world.claim(offer), world.job(offer.job), ["needed"])
    world.verdict(offer)


@pytest.mark.parametrize(
    ("state", "must_be_there"),
    [(draft, False), (queued, True), (offered, True), (returning, False), (succeeded, True)],
)
def test_a_copy_without_a_chunk_that_a_job_must_have_is_none(
    world: World, state: Callable[[World], None], must_be_there: bool
) -> None:
    """Kills: a backup whose jobs cannot run, or whose results cannot be fetched, found out late."""
    state(world)
    assert verify(world.store, world.blobs) == 1
    if must_be_there:
        with pytest.raises(Corrupt, match=r"backup\.chunk_missing"):
            verify(world.store, MemoryBlobs())
    else:  # it may still be on its way
        assert verify(world.store, MemoryBlobs()) == 1


class Odd(MemoryBlobs):
    """Blobs of which one is not there, or not sound, when it is read."""

    def __init__(self, world: World, error: SekishoError) -> None:
        super().__init__(now=world.clock.now)
        self._error = error

    def read(self, space: str, digest: str) -> Frame:
        if digest == DIGEST:
            raise self._error
        return super().read(space, digest)


def test_what_is_collected_meanwhile_is_not_lacked_and_damage_ends_the_copy(world: World) -> None:
    for error in (NotFound("chunk.not_found"), IntegrityError("chunk.damaged")):
        source, target = Odd(world, error), MemoryBlobs()
        for text in ("needed", "other"):
            chunk, data = a_chunk(text)
            source.put(SPACE, [Frame(chunk.digest, data)])
        if isinstance(error, NotFound):
            assert copy_chunks(source, target, world.clock.now()) == (1, len("other"))
            assert target.missing(SPACE, [DIGEST, a_chunk("other")[0].digest]) == [DIGEST]
            continue
        with pytest.raises(IntegrityError):
            copy_chunks(source, target, world.clock.now())
