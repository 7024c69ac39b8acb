"""What a look at every stored byte tells: what is wrong, and who needs it."""

from __future__ import annotations

from sekisho.adapters.blobs_memory import MemoryBlobs
from sekisho.broker.scrub import Damage, Scrub
from sekisho.domain.errors import IntegrityError, Unavailable
from sekisho.wire.frames import Frame
from tests.component.broker_world import World
from tests.world import a_chunk

ONE, BOTH, TWO = (a_chunk(text)[0].digest for text in ("one", "both", "two"))


class Spoilt(MemoryBlobs):
    """Blobs of which one is damaged, and one lies where the disk cannot read."""

    def read(self, space: str, digest: str) -> Frame:
        if digest == ONE:
            raise IntegrityError("chunk.damaged", digest=digest)
        if digest == BOTH:
            raise Unavailable("storage.failed")
        return super().read(space, digest)


def test_each_damage_has_its_name_and_the_jobs_that_need_it_and_no_others() -> None:
    """Kills: a chunk that cannot be read and is passed over, every job named for each damage."""
    clock = World().clock
    world = World(clock=clock, blobs=Spoilt(now=clock.now))
    first, second = world.draft("one", "both"), world.draft("both", "two")
    scrub = Scrub(world.store, world.blobs)
    told = {damage.digest: damage for damage in scrub.run(world.clock.now())}
    assert told == {
        ONE: Damage("damaged", "one", "alice", ONE, (first.id,)),
        BOTH: Damage("unreadable", "one", "alice", BOTH, told[BOTH].jobs),
    }
    assert set(told[BOTH].jobs) == {first.id, second.id}
    assert (scrub.chunks, scrub.bytes) == (1, len("two"))
