"""What every Retention does, and that no interleaving loses a chunk that somebody relies on."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest

from sekisho.adapters.blobs_memory import MemoryBlobs
from sekisho.broker.holding import Usage
from sekisho.broker.ports import EVERYONE, Store, space_of
from sekisho.domain.errors import Conflict, NotFound
from sekisho.domain.job import Cancelled, Job, JobState, apply
from sekisho.wire.frames import Chunk, Frame
from tests.world import DAY, HOUR, NOW, a_chunk, a_job, an_id

SPACE = space_of(site="one", submitter="alice")
LONG_AGO = datetime.fromisoformat("2000-01-01T00:00:00+00:00")


def an_ended_job(**changes: Any) -> Job:
    return a_job(**({"state": JobState.SUCCEEDED, "changed_at": NOW, "result": b"r"} | changes))


def purgeable(store: Store, *, received: datetime = LONG_AGO, ended: datetime = LONG_AGO) -> bool:
    return bool(store.retention.purgeable(received_before=received, ended_before=ended, limit=10))


def test_a_received_job_may_go_earlier_than_one_that_nobody_fetched(store: Store) -> None:
    store.jobs.add(a_job())
    job = an_ended_job(id=store.jobs.add(a_job()).id, received_at=NOW + HOUR, version=1)
    assert store.jobs.save(job, expected_version=0)
    assert not purgeable(store, received=NOW + HOUR, ended=NOW)
    assert purgeable(store, received=NOW + 2 * HOUR, ended=NOW)
    assert store.retention.purgeable(
        received_before=LONG_AGO, ended_before=NOW + HOUR, limit=10
    ) == [job]


def test_an_ended_job_waits_for_its_submitter(store: Store) -> None:
    store.jobs.add(an_ended_job(result=None))
    assert not purgeable(store, received=NOW + DAY)
    assert purgeable(store, ended=NOW + DAY)


@pytest.mark.parametrize("state", [state for state in JobState if not state.terminal])
def test_a_live_job_is_never_forgotten(store: Store, state: JobState) -> None:
    job = store.jobs.add(a_job(state=state, changed_at=LONG_AGO))
    assert not purgeable(store, received=NOW + DAY, ended=NOW + DAY)
    with pytest.raises(Conflict) as caught:
        store.retention.purge(job.id)
    assert caught.value.code == "job.not_ended"
    assert store.jobs.get(job.id, EVERYONE) == job


def test_purgeable_returns_at_most_what_was_asked(store: Store) -> None:
    for _ in range(5):
        store.jobs.add(an_ended_job(result=None))
    later = NOW + DAY
    found = store.retention.purgeable(received_before=later, ended_before=later, limit=3)
    assert len(found) == 3


def test_of_a_purged_job_nothing_is_left_but_the_refusal_of_its_id(store: Store) -> None:
    job = store.jobs.add(an_ended_job(result=None))
    store.ledger.declare(job.id, [a_chunk()[0]])
    store.retention.purge(job.id)
    with pytest.raises(NotFound):
        store.jobs.get(job.id, EVERYONE)
    assert store.ledger.declared(job.id) == []
    assert store.ledger.history(job.id) == []
    assert store.ledger.counts() == {}
    assert store.ledger.usage() == Usage(live_jobs=0, stored_bytes=0)
    with pytest.raises(Conflict) as caught:
        store.jobs.add(job)
    assert caught.value.code == "job.forgotten"
    assert store.ledger.usage() == Usage(live_jobs=0, stored_bytes=0)


def test_purging_again_or_an_unknown_job_is_no_error(store: Store) -> None:
    job = store.jobs.add(an_ended_job(result=None))
    store.retention.purge(job.id)
    store.retention.purge(job.id)
    store.retention.purge(an_id("job"))


def test_a_declared_chunk_stays_and_others_go(store: Store) -> None:
    blobs = MemoryBlobs()
    kept, dropped = a_chunk("kept"), a_chunk("dropped")
    for chunk, data in (kept, dropped):
        blobs.put(SPACE, [Frame(chunk.digest, data)])
    job = store.jobs.add(a_job())
    store.ledger.declare(job.id, [kept[0]])
    both = [kept[0].digest, dropped[0].digest]
    assert store.retention.unpinned(SPACE, both, blobs) == [dropped[0].digest]
    assert blobs.missing(SPACE, both) == [dropped[0].digest]


@pytest.mark.parametrize("owner", [{"site": "two"}, {"submitter": "bob"}])
def test_a_declaration_in_another_space_keeps_nothing(store: Store, owner: dict[str, str]) -> None:
    blobs = MemoryBlobs()
    chunk, data = a_chunk()
    blobs.put(SPACE, [Frame(chunk.digest, data)])
    store.ledger.declare(store.jobs.add(a_job(**owner)).id, [chunk])
    assert store.retention.unpinned(SPACE, [chunk.digest], blobs) == [chunk.digest]


class BlobsThatDeclareMeanwhile(MemoryBlobs):
    """While a chunk is deleted, another thread tries to declare it."""

    def __init__(self, store: Store, job: Job, chunk: Chunk) -> None:
        super().__init__()
        self.declared = threading.Event()
        self.declared_meanwhile: bool | None = None

        def declare() -> None:
            store.ledger.declare(job.id, [chunk])
            self.declared.set()

        self.thread = threading.Thread(target=declare)

    def delete(self, space: str, digests: Sequence[str]) -> None:
        self.thread.start()
        self.declared_meanwhile = self.declared.wait(0.3)
        super().delete(space, digests)


def test_a_declaration_waits_until_the_deletion_is_over(store: Store) -> None:
    """Kills: a deletion that holds no lock, or one that readers of the pins take too."""
    chunk, data = a_chunk()
    job = store.jobs.add(a_job())
    blobs = BlobsThatDeclareMeanwhile(store, job, chunk)
    blobs.put(SPACE, [Frame(chunk.digest, data)])
    store.retention.unpinned(SPACE, [chunk.digest], blobs)
    blobs.thread.join(30)
    assert blobs.declared_meanwhile is False
    assert blobs.declared.is_set()


def test_who_asks_before_declaring_can_be_told_of_a_chunk_that_goes(store: Store) -> None:
    """Shows why the order matters, and that the race below is a real one."""
    blobs = MemoryBlobs()
    chunk, data = a_chunk()
    blobs.put(SPACE, [Frame(chunk.digest, data)])
    job = store.jobs.add(a_job())
    assert blobs.missing(SPACE, [chunk.digest]) == []
    store.retention.unpinned(SPACE, [chunk.digest], blobs)
    store.ledger.declare(job.id, [chunk])
    assert blobs.missing(SPACE, [chunk.digest]) == [chunk.digest]


def test_no_interleaving_of_senders_and_collection_loses_a_chunk(store: Store) -> None:
    """Kills: deleting outside the transaction that looked for declarations."""
    blobs = MemoryBlobs()
    contents = [a_chunk(f"content {n}") for n in range(6)]
    digests = [chunk.digest for chunk, _ in contents]
    sending = threading.Event()
    sending.set()

    def collect() -> int:
        deleted = 0
        while sending.is_set():
            deleted += len(store.retention.unpinned(SPACE, digests, blobs))
        return deleted

    def send(rounds: int) -> list[str]:
        lost: list[str] = []
        for _ in range(rounds):
            job = store.jobs.add(a_job())
            store.ledger.declare(job.id, [chunk for chunk, _ in contents])
            wanted = set(blobs.missing(SPACE, digests))
            for chunk, data in contents:
                if chunk.digest in wanted:
                    blobs.put(SPACE, [Frame(chunk.digest, data)])
            lost += blobs.missing(SPACE, digests)
            store.jobs.save(apply(job, Cancelled(at=NOW)), expected_version=0)
            store.retention.purge(job.id)
        return lost

    with ThreadPoolExecutor(5) as threads:
        collector = threads.submit(collect)
        try:
            lost = [digest for found in threads.map(send, [100] * 4) for digest in found]
        finally:
            sending.clear()
    assert lost == []
    assert collector.result() > 0, "nothing was ever collected, so nothing was tried"
