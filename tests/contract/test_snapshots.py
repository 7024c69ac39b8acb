"""What every Snapshots does."""

from __future__ import annotations

import pytest

from sekisho.broker.ports import Store
from sekisho.domain.errors import NotFound
from sekisho.domain.job import Cancelled, apply
from tests.world import NOW, a_job, an_id


def test_the_last_snapshot_is_what_there_is(store: Store) -> None:
    job = store.jobs.add(a_job())
    assert store.snapshots.last(job.id) is None
    store.snapshots.keep(job.id, b"first")
    store.snapshots.keep(job.id, b"\0second")
    assert store.snapshots.last(job.id) == b"\0second"


def test_without_a_job_there_is_no_snapshot(store: Store) -> None:
    with pytest.raises(NotFound):
        store.snapshots.keep(an_id("job"), b"shown")


def test_a_snapshot_is_forgotten_with_its_job(store: Store) -> None:
    job = store.jobs.add(a_job())
    store.snapshots.keep(job.id, b"shown")
    assert store.jobs.save(apply(job, Cancelled(at=NOW)), expected_version=0)
    store.retention.purge(job.id)
    assert store.snapshots.last(job.id) is None
