"""What every JobStore does: memory, SQLite, PostgreSQL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from sekisho.broker.ports import EVERYONE, JobFilter, Store, Tenant
from sekisho.domain.errors import Conflict, NotFound
from sekisho.domain.job import (
    Accepted,
    Attention,
    Cancelled,
    Described,
    InputsComplete,
    Job,
    JobState,
    Offered,
    apply,
)
from tests.world import DAY, HOUR, NOW, a_job, an_id

UNTIL = NOW + timedelta(seconds=60)


def every_field_set() -> Job:
    return a_job(
        request=bytes(range(256)),
        state=JobState.LOST,
        changed_at=NOW + HOUR,
        epoch=2**40,
        instance="agent-1",
        offer_until=UNTIL,
        cancel_requested=True,
        attention=Attention.UNKNOWN_FATE,
        result=b"\x00result",
        result_tree="e" * 64,
        lost_by="an operator",
        received_at=NOW + 2 * HOUR,
        version=7,
    )


def taken(store: Store, *, instance: str = "agent-1") -> Job:
    job = store.jobs.offer_next("one", instance, now=NOW, until=UNTIL)
    assert job is not None
    return job


def test_a_job_comes_back_as_it_was_added(store: Store) -> None:
    job = a_job()
    assert store.jobs.add(job) == job
    assert store.jobs.get(job.id, EVERYONE) == job


def test_every_field_of_a_job_is_kept(store: Store) -> None:
    job, changed = a_job(), every_field_set()
    changed = replace(changed, id=job.id, request=job.request)
    store.jobs.add(job)
    assert store.jobs.save(changed, expected_version=0)
    assert store.jobs.get(job.id, EVERYONE) == changed


def test_adding_again_returns_the_kept_job_as_it_is_now(store: Store) -> None:
    job = a_job()
    store.jobs.add(job)
    queued = apply(job, InputsComplete(at=NOW))
    store.jobs.save(queued, expected_version=0)
    assert store.jobs.add(replace(job, created_at=NOW + DAY)) == queued
    assert store.jobs.get(job.id, EVERYONE) == queued


def test_a_draft_gets_its_request_later_and_keeps_it(store: Store) -> None:
    """Kills: a request that the store takes from the addition only, or a stale one written back."""
    job = store.jobs.add(a_job(request=b"", request_digest=""))
    event = Described(at=NOW, request=b"solve", request_digest="d" * 64, expires_at=NOW + DAY)
    described = apply(job, event)
    assert store.jobs.save(described, expected_version=0)
    assert store.jobs.get(job.id, EVERYONE) == described
    queued = apply(described, InputsComplete(at=NOW))
    assert store.jobs.save(queued, expected_version=1)
    assert store.jobs.get(job.id, EVERYONE) == queued
    assert taken(store).request == b"solve"


def test_a_draft_without_a_request_is_the_same_submission_as_one_with_it(store: Store) -> None:
    """Two processes submit one job; whoever is second is told of the first."""
    bare, whole = a_job(request=b"", request_digest=""), a_job()
    first = store.jobs.add(bare)
    assert store.jobs.add(replace(whole, id=bare.id)) == first
    store.jobs.add(whole)
    assert store.jobs.add(replace(bare, id=whole.id)) == whole
    with pytest.raises(Conflict, match="different_request"):
        store.jobs.add(replace(bare, site="two"))


@pytest.mark.parametrize(
    "other", [{"request_digest": "f" * 64}, {"site": "two"}, {"submitter": "bob"}]
)
def test_one_id_is_never_two_submissions(store: Store, other: dict[str, Any]) -> None:
    job = store.jobs.add(a_job())
    with pytest.raises(Conflict) as caught:
        store.jobs.add(replace(job, **other))
    assert caught.value.code == "job.different_request"
    assert store.jobs.get(job.id, EVERYONE) == job
    assert store.ledger.usage().live_jobs == 1


def test_threads_that_add_one_job_all_get_the_kept_one(store: Store) -> None:
    job = a_job()
    with ThreadPoolExecutor(8) as threads:
        kept = list(threads.map(store.jobs.add, [job] * 16))
    assert kept == [job] * 16
    assert store.ledger.usage().live_jobs == 1


@pytest.mark.parametrize(
    "tenant",
    [
        EVERYONE,
        Tenant(submitter="alice"),
        Tenant(site="one"),
        Tenant(site="one", submitter="alice"),
    ],
)
def test_a_job_is_seen_by_its_submitter_its_site_and_the_operator(
    store: Store, tenant: Tenant
) -> None:
    job = store.jobs.add(a_job())
    assert store.jobs.get(job.id, tenant) == job


@pytest.mark.parametrize(
    "tenant",
    [
        Tenant(submitter="bob"),
        Tenant(site="two"),
        Tenant(site="one", submitter="bob"),
        Tenant(site="two", submitter="alice"),
        Tenant(submitter=""),
        Tenant(site="%"),
    ],
)
def test_for_anybody_else_the_job_does_not_exist(store: Store, tenant: Tenant) -> None:
    job = store.jobs.add(a_job())
    with pytest.raises(NotFound):
        store.jobs.get(job.id, tenant)


def test_an_unknown_job_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound):
        store.jobs.get(an_id("job"), EVERYONE)


def test_a_save_over_another_version_changes_nothing(store: Store) -> None:
    job = store.jobs.add(a_job())
    queued = apply(job, InputsComplete(at=NOW))
    assert store.jobs.save(queued, expected_version=0)
    assert not store.jobs.save(apply(job, Cancelled(at=NOW)), expected_version=0)
    assert store.jobs.get(job.id, EVERYONE) == queued


def test_a_save_of_an_unknown_job_keeps_nothing(store: Store) -> None:
    job = a_job()
    assert not store.jobs.save(job, expected_version=0)
    with pytest.raises(NotFound):
        store.jobs.get(job.id, EVERYONE)


def test_of_many_threads_that_save_over_one_version_one_wins(store: Store) -> None:
    job = store.jobs.add(a_job())
    for version in range(20):
        rivals = [replace(job, version=version + 1, instance=f"agent-{n}") for n in range(8)]

        def save(rival: Job, expected_version: int = version) -> bool:
            return store.jobs.save(rival, expected_version=expected_version)

        with ThreadPoolExecutor(8) as threads:
            won = list(threads.map(save, rivals))
        assert won.count(True) == 1
        assert store.jobs.get(job.id, EVERYONE) == rivals[won.index(True)]


def test_an_offer_is_kept_as_the_job_table_makes_it(store: Store) -> None:
    job = store.jobs.add(a_job(state=JobState.QUEUED))
    offered = apply(job, Offered(at=NOW, instance="agent-1", until=UNTIL))
    assert taken(store) == offered
    assert store.jobs.get(job.id, EVERYONE) == offered


def test_the_oldest_job_is_offered_first_whatever_its_id(store: Store) -> None:
    late, early = a_job(state=JobState.QUEUED), a_job(state=JobState.QUEUED, created_at=NOW - DAY)
    store.jobs.add(late)
    store.jobs.add(early)
    assert [taken(store).id, taken(store).id] == [early.id, late.id]


@pytest.mark.parametrize(
    "change",
    [
        {"site": "two"},
        {"expires_at": NOW},
        *({"state": state} for state in JobState if state is not JobState.QUEUED),
    ],
)
def test_only_a_queued_job_of_the_site_that_has_not_expired_is_offered(
    store: Store, change: dict[str, Any]
) -> None:
    job = store.jobs.add(a_job(**({"state": JobState.QUEUED} | change)))
    assert store.jobs.offer_next("one", "agent-1", now=NOW, until=UNTIL) is None
    assert store.jobs.get(job.id, EVERYONE) == job


def test_each_job_is_offered_to_exactly_one_of_many_callers(store: Store) -> None:
    jobs = {store.jobs.add(a_job(state=JobState.QUEUED)).id for _ in range(60)}

    def take_all(name: str) -> list[str]:
        mine: list[str] = []
        while job := store.jobs.offer_next("one", name, now=NOW, until=UNTIL):
            mine.append(job.id)
        return mine

    with ThreadPoolExecutor(6) as threads:
        offered = [
            i for ids in threads.map(take_all, [f"agent-{n}" for n in range(6)]) for i in ids
        ]
    assert sorted(offered) == sorted(jobs)
    assert {store.jobs.get(job_id, EVERYONE).epoch for job_id in jobs} == {1}


def test_an_offer_and_a_cancel_at_once_leave_one_of_them(store: Store) -> None:
    for _ in range(40):
        job = store.jobs.add(a_job(state=JobState.QUEUED))
        cancelled = apply(job, Cancelled(at=NOW))
        with ThreadPoolExecutor(2) as threads:
            cancel = threads.submit(store.jobs.save, cancelled, expected_version=0)
            offer = threads.submit(store.jobs.offer_next, "one", "a", now=NOW, until=UNTIL)
        assert cancel.result() is (offer.result() is None)


@pytest.fixture
def listed(store: Store) -> dict[str, str]:
    """Three jobs, oldest first, by a short name."""
    jobs = {
        "a": a_job(),
        "b": a_job(site="two", state=JobState.QUEUED),
        "c": a_job(submitter="bob", state=JobState.FAILED),
    }
    return {store.jobs.add(job).id: name for name, job in jobs.items()}


@pytest.mark.parametrize(
    ("which", "names"),
    [
        (JobFilter(), "cba"),
        (JobFilter(site="one"), "ca"),
        (JobFilter(submitter="alice"), "ba"),
        (JobFilter(site="two", submitter="alice"), "b"),
        (JobFilter(states=frozenset({JobState.DRAFT, JobState.FAILED})), "ca"),
        (JobFilter(submitter="bob", states=frozenset({JobState.DRAFT})), ""),
        (JobFilter(states=frozenset()), ""),
    ],
)
def test_a_page_lists_what_the_filter_names_newest_first(
    store: Store, listed: dict[str, str], which: JobFilter, names: str
) -> None:
    page = store.jobs.page(which, after=None, limit=10)
    assert "".join(listed[job.id] for job in page) == names


def test_a_page_can_list_those_of_some_jobs_that_are_to_be_cancelled(store: Store) -> None:
    kinds = {"a": (True, "one"), "b": (False, "one"), "c": (True, "two"), "d": (True, "one")}
    jobs = {
        name: store.jobs.add(a_job(site=site, state=JobState.RUNNING, cancel_requested=cancel)).id
        for name, (cancel, site) in kinds.items()
    }
    asked = frozenset(jobs[name] for name in "abc")
    for which, names in (
        (JobFilter(ids=asked), "cba"),
        (JobFilter(ids=asked, site="one", cancelling=True), "a"),
        (JobFilter(ids=frozenset()), ""),
        (JobFilter(cancelling=True), "dca"),
    ):
        page = store.jobs.page(which, after=None, limit=10)
        assert [job.id for job in page] == [jobs[name] for name in names]


def test_pages_follow_each_other_without_gap_or_overlap(store: Store) -> None:
    ids = [store.jobs.add(a_job()).id for _ in range(7)]
    found: list[str] = []
    while page := store.jobs.page(JobFilter(), after=found[-1] if found else None, limit=3):
        assert len(page) <= 3
        found += [job.id for job in page]
    assert found == ids[::-1]


@pytest.mark.parametrize(
    ("change", "due"),
    [
        ({"state": JobState.DRAFT}, False),
        ({"state": JobState.DRAFT, "expires_at": NOW}, True),
        ({"state": JobState.DRAFT, "created_at": NOW - DAY, "expires_at": NOW + 9 * DAY}, True),
        ({"state": JobState.QUEUED}, False),
        ({"state": JobState.QUEUED, "expires_at": NOW}, True),
        ({"state": JobState.QUEUED, "created_at": NOW - 8 * DAY}, False),
        ({"state": JobState.OFFERED, "offer_until": UNTIL}, False),
        ({"state": JobState.OFFERED, "offer_until": NOW}, True),
        ({"state": JobState.OFFERED, "offer_until": UNTIL, "expires_at": NOW}, False),
        *(
            ({"state": state, "expires_at": NOW, "offer_until": NOW}, False)
            for state in JobState
            if state not in {JobState.DRAFT, JobState.QUEUED, JobState.OFFERED}
        ),
    ],
)
def test_timers_run_only_before_a_site_has_accepted(
    store: Store, change: dict[str, Any], *, due: bool
) -> None:
    job = store.jobs.add(a_job(**change))
    assert store.jobs.due(NOW, limit=10) == ([job] if due else [])


def test_due_returns_at_most_what_was_asked(store: Store) -> None:
    for _ in range(5):
        store.jobs.add(a_job(expires_at=NOW))
    assert len(store.jobs.due(NOW, limit=3)) == 3


def test_a_job_lives_through_the_store_as_through_the_table(store: Store) -> None:
    store.jobs.add(a_job(state=JobState.QUEUED))
    offered = taken(store)
    accepted = apply(offered, Accepted(at=NOW, epoch=1, instance="agent-1"))
    assert store.jobs.save(accepted, expected_version=offered.version)
    assert store.jobs.get(offered.id, Tenant(site="one")) == accepted
