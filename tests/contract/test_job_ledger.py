"""What every JobLedger does: pins, totals, history."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from sekisho.broker.holding import Holding, Usage
from sekisho.broker.ports import EVERYONE, JobFilter, Store
from sekisho.domain.errors import IntegrityError, InvalidTransition, NotFound, QuotaExceeded
from sekisho.domain.job import (
    Accepted,
    Attention,
    Cancelled,
    CancelRequested,
    Ended,
    Event,
    Expired,
    Failed,
    InputsComplete,
    Job,
    JobState,
    Offered,
    OfferExpired,
    Returned,
    Started,
    apply,
    mark_received,
)
from sekisho.wire.frames import Chunk
from tests.world import DAY, NOW, a_chunk, a_job, an_id


def chunks(*sizes: int) -> list[Chunk]:
    return [Chunk(f"{size:064x}", size) for size in sizes]


def events_of_a_run() -> list[Event]:
    return [
        InputsComplete(at=NOW + timedelta(seconds=1)),
        Offered(at=NOW + timedelta(seconds=2), instance="agent-1", until=NOW + DAY),
        Accepted(at=NOW + timedelta(seconds=3), epoch=1, instance="agent-1"),
        CancelRequested(at=NOW + timedelta(seconds=4)),
        Started(at=NOW + timedelta(seconds=5), epoch=1, instance="agent-1"),
        Ended(at=NOW + timedelta(seconds=6), epoch=1, instance="agent-1"),
        Returned(at=NOW + timedelta(seconds=7), epoch=1, instance="agent-1", result=b"r", ok=True),
    ]


def save(store: Store, job: Job) -> Job:
    assert store.jobs.save(job, expected_version=job.version - 1)
    return job


def test_states_passed_in_one_change_are_remembered_as_if_one_by_one(
    store: Store,
) -> None:
    """Kills: a change that remembers, or counts, only where it ended."""
    before = store.jobs.add(a_job())
    course = [before]
    for event in events_of_a_run():
        course.append(apply(course[-1], event))
    *passed, last = course[1:]
    assert store.jobs.save(last, expected_version=before.version, passed=passed)
    assert store.jobs.get(before.id, EVERYONE) == last
    told = [(job.changed_at or job.created_at, job.state) for job in course]
    once = [told[n] for n in range(len(told)) if n == 0 or told[n][1] is not told[n - 1][1]]
    assert store.ledger.history(before.id) == once
    assert store.ledger.usage().live_jobs == 0


def test_states_passed_by_who_was_too_late_are_not_remembered(store: Store) -> None:
    job = store.jobs.add(a_job())
    queued = apply(job, InputsComplete(at=NOW))
    offered = apply(queued, Offered(at=NOW, instance="agent-1", until=NOW + DAY))
    assert not store.jobs.save(offered, expected_version=job.version + 1, passed=[queued])
    assert [state for _, state in store.ledger.history(job.id)] == [JobState.DRAFT]


def test_a_job_that_declared_nothing_holds_nothing(store: Store) -> None:
    job = store.jobs.add(a_job())
    assert store.ledger.declare(job.id, []) == 0
    assert store.ledger.declared(job.id) == []
    assert store.ledger.needs(job.id, [])


def test_declaring_adds_up_and_counts_each_chunk_once(store: Store) -> None:
    job = store.jobs.add(a_job())
    assert store.ledger.declare(job.id, chunks(10, 20, 10)) == 30
    assert store.ledger.declare(job.id, chunks(20, 5)) == 35
    assert store.ledger.declare(job.id, chunks(20, 5)) == 35
    assert store.ledger.declared(job.id) == chunks(5, 10, 20)
    assert store.ledger.usage() == Usage(live_jobs=1, stored_bytes=35)


def test_threads_that_declare_at_once_count_each_chunk_once(store: Store) -> None:
    job = store.jobs.add(a_job())
    parts = [chunks(*range(n, n + 20)) for n in range(1, 41)]
    with ThreadPoolExecutor(8) as threads:
        held = list(threads.map(store.ledger.declare, [job.id] * 40, parts))
    assert max(held) == sum(range(1, 60)) == store.ledger.usage().stored_bytes


def let_in(act: Callable[[], object]) -> bool:
    """Do it; say whether the quota let it through."""
    try:
        act()
    except QuotaExceeded:
        return False
    return True


@pytest.mark.parametrize("kind", ["site", "submitter"])
def test_of_many_who_declare_at_once_no_more_are_let_in_than_may_be(
    store: Store, kind: str
) -> None:
    """Kills: a quota that is looked at before, and passed by all who looked at the same time."""
    other = {"site": "submitter", "submitter": "site"}[kind]
    jobs = [store.jobs.add(a_job(**{other: f"other{n % 4}"})) for n in range(16)]

    def at_most_30(holding: Holding) -> None:
        if getattr(holding, kind) > 30:
            raise QuotaExceeded("quota.bytes")

    def declared(job: Job) -> bool:
        return let_in(lambda: store.ledger.declare(job.id, chunks(10), at_most_30))

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(declared, jobs)) == 3
    assert store.ledger.usage().stored_bytes == 30
    assert sum(len(store.ledger.declared(job.id)) for job in jobs) == 3


@pytest.mark.parametrize("kind", ["site", "submitter"])
def test_of_many_who_submit_at_once_no_more_are_let_in_than_may_be(store: Store, kind: str) -> None:
    """Kills: a quota that is looked at before, and passed by all who looked at the same time."""
    other = {"site": "submitter", "submitter": "site"}[kind]
    jobs = [a_job(**{other: f"other{n % 4}"}) for n in range(16)]

    def at_most_3(site: Usage, submitter: Usage) -> None:
        if {"site": site, "submitter": submitter}[kind].live_jobs > 3:
            raise QuotaExceeded("quota.jobs")

    def added(job: Job) -> bool:
        return let_in(lambda: store.jobs.add(job, at_most_3))

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(added, jobs)) == 3
    assert store.ledger.usage().live_jobs == 3
    kept = store.jobs.page(JobFilter(), after=None, limit=20)
    assert sum(len(store.ledger.history(job.id)) for job in jobs) == len(kept) == 3
    for job in kept:
        assert store.jobs.add(job, at_most_3) == job  # a repeat is no new one
    save(store, apply(kept[0], Cancelled(at=NOW)))
    assert added(a_job())


def test_those_who_submit_and_those_who_declare_at_once_wait_for_no_circle(store: Store) -> None:
    """Kills: totals held in another order by the one than by the other."""
    sites, users = ("one", "two"), ("alice", "bob")
    heard: list[int] = []

    def work(n: int) -> None:
        job = a_job(site=sites[n % 2], submitter=users[n // 2 % 2])
        store.jobs.add(job, lambda site, _: heard.append(site.live_jobs))
        store.ledger.declare(job.id, chunks(1, 2), lambda holding: heard.append(holding.site))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(80)))
    assert len(heard) >= 160
    assert store.ledger.usage() == Usage(live_jobs=80, stored_bytes=240)


def test_a_digest_has_one_size(store: Store) -> None:
    job = store.jobs.add(a_job())
    store.ledger.declare(job.id, chunks(10))
    liar = Chunk(chunks(10)[0].digest, 0)
    for told in ([liar], [*chunks(1), liar], [*chunks(7), replace(chunks(7)[0], size=8)]):
        with pytest.raises(IntegrityError):
            store.ledger.declare(job.id, told)
    assert store.ledger.declared(job.id) == chunks(10)
    assert store.ledger.usage().stored_bytes == 10


def test_an_unknown_job_cannot_declare_and_needs_nothing(store: Store) -> None:
    job_id = an_id("job")
    with pytest.raises(NotFound):
        store.ledger.declare(job_id, chunks(1))
    assert not store.ledger.needs(job_id, [chunks(1)[0].digest])
    assert store.ledger.declared(job_id) == []
    assert store.ledger.history(job_id) == []


def test_a_job_needs_what_itself_has_declared_and_nothing_else(store: Store) -> None:
    mine, other = store.jobs.add(a_job()), store.jobs.add(a_job())
    store.ledger.declare(mine.id, chunks(1, 2))
    store.ledger.declare(other.id, chunks(2, 3))
    one, two, three = (chunk.digest for chunk in chunks(1, 2, 3))
    assert store.ledger.needs(mine.id, [one, two, one])
    assert not store.ledger.needs(mine.id, [one, three])
    assert store.ledger.declared(mine.id, [two, three, two]) == chunks(2)
    assert store.ledger.declared(mine.id, []) == []


def test_more_chunks_than_one_statement_names_are_declared_at_once(store: Store) -> None:
    job = store.jobs.add(a_job())
    many = [a_chunk(str(n))[0] for n in range(2500)]
    held = sum(chunk.size for chunk in many)
    assert store.ledger.declare(job.id, many) == held
    assert store.ledger.declare(job.id, many[1::2]) == held
    assert store.ledger.needs(job.id, [chunk.digest for chunk in many])
    assert store.ledger.declared(job.id) == sorted(many)


def test_usage_is_told_apart_by_site_and_submitter(store: Store) -> None:
    for site, submitter, size in [("one", "alice", 1), ("one", "bob", 10), ("two", "alice", 100)]:
        job = store.jobs.add(a_job(site=site, submitter=submitter))
        store.ledger.declare(job.id, chunks(size))
    usage = store.ledger.usage
    assert usage(site="one") == Usage(live_jobs=2, stored_bytes=11)
    assert usage(submitter="alice") == Usage(live_jobs=2, stored_bytes=101)
    assert usage(site="one", submitter="alice") == Usage(live_jobs=1, stored_bytes=1)
    assert usage() == Usage(live_jobs=3, stored_bytes=111)
    assert usage(site="three") == Usage(live_jobs=0, stored_bytes=0)


def test_an_ended_job_is_not_live_but_holds_its_bytes(store: Store) -> None:
    job = store.jobs.add(a_job())
    store.ledger.declare(job.id, chunks(9))
    ended = save(store, apply(job, Cancelled(at=NOW)))
    save(store, mark_received(ended, NOW))
    assert store.ledger.usage() == Usage(live_jobs=0, stored_bytes=9)


def test_totals_are_what_the_jobs_add_up_to_after_any_history(store: Store) -> None:
    """Kills: a total that one of add, declare, save, offer or purge forgets to keep up."""
    dice = random.Random(2026)
    live: list[Job] = []
    held: dict[str, int] = {}
    for _ in range(150):
        match dice.choice(["add", "declare", "move", "offer", "purge"]):
            case "add":
                job = store.jobs.add(a_job(submitter=dice.choice(["alice", "bob"])))
                live.append(job)
                held[job.id] = 0
            case "declare" if held:
                job = dice.choice([job for job in live if job.id in held])
                held[job.id] = store.ledger.declare(job.id, chunks(dice.randrange(1, 30)))
            case "move" if live:
                move(store, dice.choice(live), dice)
            case "offer":
                store.jobs.offer_next("one", "agent", now=NOW, until=NOW)
            case "purge" if live:
                purge_if_ended(store, dice.choice(live), held)
    kept = store.jobs.page(JobFilter(), after=None, limit=1000)
    assert {job.id for job in kept} == held.keys()
    for user in ("alice", "bob"):
        mine = [job for job in kept if job.submitter == user]
        assert store.ledger.usage(submitter=user) == Usage(
            live_jobs=sum(not job.state.terminal for job in mine),
            stored_bytes=sum(held[job.id] for job in mine),
        )


def move(store: Store, job: Job, dice: random.Random) -> None:
    try:
        job = store.jobs.get(job.id, EVERYONE)
        event = dice.choice([InputsComplete, Cancelled, Expired, OfferExpired])(at=NOW)
        save(store, apply(job, event))
    except (NotFound, InvalidTransition):
        return


def purge_if_ended(store: Store, job: Job, held: dict[str, int]) -> None:
    if job.id in held and store.jobs.get(job.id, EVERYONE).state.terminal:
        store.retention.purge(job.id)
        del held[job.id]


def test_counts_tell_each_site_and_state(store: Store) -> None:
    for site, state in [("one", "draft"), ("one", "draft"), ("one", "lost"), ("two", "draft")]:
        store.jobs.add(a_job(site=site, state=JobState(state)))
    assert store.ledger.counts() == {
        ("one", JobState.DRAFT): 2,
        ("one", JobState.LOST): 1,
        ("two", JobState.DRAFT): 1,
    }


def test_the_history_holds_each_state_once_with_its_time(store: Store) -> None:
    job = store.jobs.add(a_job())
    for event in events_of_a_run():
        if isinstance(event, Offered):
            found = store.jobs.offer_next("one", "agent-1", now=event.at, until=event.until)
            assert found is not None
            job = found
        else:
            job = save(store, apply(job, event))
    save(store, mark_received(job, NOW + DAY))
    states = ["draft", "queued", "offered", "accepted", "running", "returning", "succeeded"]
    seconds = [0, 1, 2, 3, 5, 6, 7]
    assert store.ledger.history(job.id) == [
        (NOW + timedelta(seconds=n), JobState(state))
        for n, state in zip(seconds, states, strict=True)
    ]


def test_a_flag_is_no_new_state(store: Store) -> None:
    job = store.jobs.add(a_job())
    save(store, replace(job, attention=Attention.HELD, version=1))
    assert store.ledger.history(job.id) == [(NOW, JobState.DRAFT)]


def test_a_save_that_was_refused_leaves_no_history(store: Store) -> None:
    job = store.jobs.add(a_job(state=JobState.ACCEPTED, epoch=1, instance="agent-1"))
    failed = apply(job, Failed(at=NOW, epoch=1, instance="agent-1", result=b""))
    assert not store.jobs.save(failed, expected_version=5)
    assert store.ledger.history(job.id) == [(NOW, JobState.ACCEPTED)]
