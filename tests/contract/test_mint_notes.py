"""What every MintNotes does, and the offers that are for one submitter only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from sekisho.adapters.mint_uses_deferred import DeferredMintUses
from sekisho.broker.ports import MintNotes, MintUse, Store
from sekisho.domain.errors import Conflict, NotFound, StorageFull
from sekisho.domain.ids import job_number, numbered_job
from sekisho.domain.job import Cancelled, InputsComplete, Job, apply
from tests.world import DAY, NOW, a_job, an_id


def queued(store: Store, **changes: object) -> Job:
    job = store.jobs.add(a_job(**changes))
    ready = apply(job, InputsComplete(at=NOW))
    assert store.jobs.save(ready, expected_version=0)
    return ready


def test_a_note_is_what_was_kept_last(store: Store) -> None:
    job = store.jobs.add(a_job())
    assert store.mint.note(job.id) is None
    seen = []

    def kept(note: bytes) -> Callable[[bytes | None], bytes]:
        def decide(before: bytes | None) -> bytes:
            seen.append(before)
            return note

        return decide

    store.mint.change(job.id, kept(b"first"))
    store.mint.change(job.id, kept(b"\0second"))
    assert store.mint.note(job.id) == b"\0second"
    assert seen == [None, b"first"]


def test_what_a_change_raises_changes_nothing(store: Store) -> None:
    job = store.jobs.add(a_job())
    store.mint.change(job.id, lambda _: b"first")

    def refuse(_: bytes | None) -> bytes:
        raise Conflict

    with pytest.raises(Conflict):
        store.mint.change(job.id, refuse)
    assert store.mint.note(job.id) == b"first"


def test_changes_of_a_note_at_once_are_all_kept(store: Store) -> None:
    """Kills: reading and writing a note without holding it in between."""
    job = store.jobs.add(a_job())
    start = threading.Barrier(4)

    def add(_: int) -> None:
        start.wait(30)
        for _ in range(10):
            store.mint.change(job.id, lambda note: (note or b"") + b"x")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(4)))
    assert store.mint.note(job.id) == b"x" * 40


def test_without_a_job_there_is_no_note(store: Store) -> None:
    with pytest.raises(NotFound):
        store.mint.change(an_id("job"), lambda _: b"a note")


def test_a_note_is_forgotten_with_its_job(store: Store) -> None:
    job = store.jobs.add(a_job())
    store.mint.change(job.id, lambda _: b"a note")
    assert store.jobs.save(apply(job, Cancelled(at=NOW)), expected_version=0)
    store.retention.purge(job.id)
    assert store.mint.note(job.id) is None


def test_uses_add_up_for_each_side_of_a_site(store: Store) -> None:
    store.mint.used("two", "agent", calls=1, at=NOW)
    store.mint.used("one", "workflow", calls=2, at=NOW)
    store.mint.used("one", "workflow", calls=3, at=NOW + DAY)
    assert store.mint.uses() == [
        MintUse(site="one", side="workflow", calls=5, last_at=NOW + DAY),
        MintUse(site="two", side="agent", calls=1, last_at=NOW),
    ]


def test_deferred_uses_are_written_down_together(store: Store) -> None:
    """Kills: losing a count while it is written down, or when that fails."""
    deferred = DeferredMintUses(store.mint)
    for day in range(3):
        deferred.used("one", "agent", calls=1, at=NOW + day * DAY)
    assert store.mint.uses() == []
    deferred.flush()
    deferred.flush()
    assert store.mint.uses() == [MintUse(site="one", side="agent", calls=3, last_at=NOW + 2 * DAY)]
    broken = DeferredMintUses(Full(store.mint))
    broken.used("one", "agent", calls=2, at=NOW)
    with pytest.raises(StorageFull):
        broken.flush()
    broken.used("one", "agent", calls=2, at=NOW + 3 * DAY)
    broken.flush()
    assert broken.uses() == [MintUse(site="one", side="agent", calls=7, last_at=NOW + 3 * DAY)]


class Full(DeferredMintUses):
    """Has no room the first time."""

    def __init__(self, inner: MintNotes) -> None:
        super().__init__(inner)
        self._notes, self._tries = inner, 0

    def used(self, site: str, side: str, *, calls: int, at: datetime) -> None:
        self._tries += 1
        if self._tries == 1:
            raise StorageFull
        self._notes.used(site, side, calls=calls, at=at)


def test_an_offer_for_one_submitter_passes_over_the_others(store: Store) -> None:
    queued(store, submitter="bob", created_at=NOW - timedelta(hours=2))
    mine = queued(store, submitter="alice", created_at=NOW - timedelta(hours=1))
    until = NOW + timedelta(minutes=1)
    offered = store.jobs.offer_next("one", "agent", now=NOW, until=until, submitter="alice")
    assert offered is not None
    assert offered.id == mine.id
    again = store.jobs.offer_next("one", "agent", now=NOW, until=until, submitter="alice")
    assert again is None
    assert store.jobs.offer_next("one", "agent", now=NOW, until=until) is not None


def test_a_job_id_is_a_number_and_back() -> None:
    for job_id in (an_id("job"), numbered_job(0), numbered_job((1 << 128) - 1)):
        assert numbered_job(job_number(job_id)) == job_id
    assert job_number(replace(a_job(), id=numbered_job(7)).id) == 7
