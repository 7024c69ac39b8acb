"""What every MintNotes does, and the offers that are for one submitter only."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from sekisho.broker.ports import MintUse, Store
from sekisho.domain.errors import NotFound
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
    store.mint.keep(job.id, b"first")
    store.mint.keep(job.id, b"\0second")
    assert store.mint.note(job.id) == b"\0second"


def test_without_a_job_there_is_no_note(store: Store) -> None:
    with pytest.raises(NotFound):
        store.mint.keep(an_id("job"), b"a note")


def test_a_note_is_forgotten_with_its_job(store: Store) -> None:
    job = store.jobs.add(a_job())
    store.mint.keep(job.id, b"a note")
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
