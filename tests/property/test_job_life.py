"""The life of a job under any history of events that anybody may send, in any order, twice."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.domain import job as life
from sekisho.domain.errors import Conflict, InvalidTransition, StaleEpoch
from sekisho.domain.job import TRANSITIONS, Event, Job, JobState, SiteEvent, already, apply

NOW = datetime(2026, 1, 1, tzinfo=UTC)
JOB = Job(
    id="job_" + "0" * 26,
    site="steel",
    submitter="ann",
    created_at=NOW,
    expires_at=NOW + timedelta(days=1),
)
TERMINAL = {state for state in JobState if state.terminal}

#: The diagram of the promises, as a person reads it: state, event, what follows.
DIAGRAM = """
draft      Described        draft
draft      InputsComplete   queued
draft      Cancelled        cancelled
draft      Expired          expired
queued     Offered          offered
queued     Cancelled        cancelled
queued     Expired          expired
offered    Accepted         accepted
offered    OfferExpired     queued
offered    Cancelled        cancelled
offered    Refused          refused
accepted   Started          running
accepted   Refused          refused
accepted   Failed           failed
accepted   Stopped          cancelled
accepted   DeclaredLost     lost
accepted   CancelRequested  accepted
running    Ended            returning
running    Refused          refused
running    Failed           failed
running    Stopped          cancelled
running    DeclaredLost     lost
running    CancelRequested  running
running    Published        running
returning  Returned         succeeded
returning  Refused          refused
returning  Failed           failed
returning  CancelRequested  returning
"""


def events_of(kind: type[Event], epoch: int, instance: str) -> Event:
    """One event of ``kind``, as the holder of ``epoch`` would tell it."""
    fields: dict[type[Event], dict[str, object]] = {
        life.Described: {"request": b"r", "request_digest": "d", "expires_at": NOW},
        life.Offered: {"instance": instance, "until": NOW + timedelta(minutes=1)},
        life.Returned: {"result": b"r", "tree": "t", "ok": True},
        life.Refused: {"result": b"no"},
        life.Failed: {"result": b"unable"},
        life.Stopped: {"result": b"dead"},
        life.DeclaredLost: {"result": b"?", "by": "operator"},
    }
    own = {"epoch": epoch, "instance": instance} if issubclass(kind, SiteEvent) else {}
    return kind(at=NOW, **own, **fields.get(kind, {}))


KINDS = sorted({kind for row in TRANSITIONS.values() for kind in row}, key=lambda k: k.__name__)


@st.composite
def events_at(draw: st.DrawFn, job: Job) -> Event:
    """An event about ``job``: mostly one that can happen, mostly from its holder."""
    likely = [*TRANSITIONS.get(job.state, {})] * 3
    kind = draw(st.sampled_from([*likely, *KINDS]))
    holder = draw(st.sampled_from([True, True, True, False]))
    epoch = job.epoch if holder else draw(st.integers(0, 4))
    instance = job.instance if holder and job.instance else draw(st.sampled_from(["one", "two"]))
    event = events_of(kind, epoch, instance)
    if isinstance(event, life.Returned):
        event = replace(event, ok=draw(st.booleans()), result=draw(st.sampled_from([b"r", b"s"])))
    if isinstance(event, life.Described):
        event = replace(event, request_digest=draw(st.sampled_from(["d", "e"])))
    return event


def attempt(job: Job, event: Event) -> Job:
    try:
        return apply(job, event)
    except Conflict:
        return job


@st.composite
def histories(draw: st.DrawFn) -> list[Job]:
    """The same job after each of many events, refused ones among them."""
    jobs = [JOB]
    for _ in range(draw(st.integers(0, 40))):
        jobs.append(attempt(jobs[-1], draw(events_at(jobs[-1]))))
    return jobs


@st.composite
def moments(draw: st.DrawFn) -> tuple[Job, Event]:
    """A job somewhere in its life, and one more event."""
    job = draw(histories())[-1]
    return job, draw(events_at(job))


def test_the_table_is_the_diagram_of_the_promises() -> None:
    rows = [tuple(line.split()) for line in DIAGRAM.strip().splitlines()]
    table = {
        (state.value, kind.__name__, target.value)
        for state, row in TRANSITIONS.items()
        for kind, target in row.items()
    }
    assert table == set(rows)


def test_every_state_is_reached() -> None:
    reached = {JOB.state}
    frontier = [JOB]
    while frontier:
        job = frontier.pop()
        for kind in TRANSITIONS.get(job.state, {}):
            for event in variants(events_of(kind, job.epoch, job.instance or "one")):
                after = apply(job, event)
                if after.state not in reached:
                    reached.add(after.state)
                    frontier.append(after)
    assert reached == set(JobState)


def variants(event: Event) -> list[Event]:
    return [event, replace(event, ok=False)] if isinstance(event, life.Returned) else [event]


def test_a_state_is_terminal_exactly_when_no_event_leads_on() -> None:
    assert {s.value for s in TERMINAL} == {
        "succeeded",
        "failed",
        "refused",
        "cancelled",
        "expired",
        "lost",
    }


@given(histories())
def test_p2_one_fate_and_it_is_never_left(jobs: list[Job]) -> None:
    """Kills: a row for a terminal state; a verdict that overwrites another."""
    ends = [job for job in jobs if job.state.terminal]
    assert all(job == ends[0] for job in ends)


@given(histories())
def test_the_epoch_only_grows_and_only_by_an_offer(jobs: list[Job]) -> None:
    """Kills: an offer that keeps the epoch; an expiry that resets it."""
    for before, after in pairwise(jobs):
        offered = before.state is JobState.QUEUED and after.state is JobState.OFFERED
        assert after.epoch == before.epoch + offered


@given(histories())
def test_a_request_once_it_is_there_never_changes(jobs: list[Job]) -> None:
    """Kills: a draft described a second time, after somebody has looked at what it is for."""
    for before, after in pairwise(jobs):
        assert not before.request_digest or after.request_digest == before.request_digest


@given(histories())
def test_every_change_counts_once_in_the_version(jobs: list[Job]) -> None:
    """Kills: a change without a new version, by which compare-and-set would lose it."""
    for before, after in pairwise(jobs):
        assert after.version == before.version + (after != before)


@given(moments())
def test_whoever_does_not_hold_the_offer_changes_nothing(moment: tuple[Job, Event]) -> None:
    """Kills: an epoch compared without the instance, or with `<` instead of `!=`."""
    job, event = moment
    if isinstance(event, SiteEvent) and (event.epoch, event.instance) != (job.epoch, job.instance):
        with pytest.raises(StaleEpoch):
            apply(job, event)
        with pytest.raises(StaleEpoch):
            already(job, event)


@given(histories(), st.sampled_from([life.OfferExpired, life.Expired]))
def test_after_accepted_no_timer_moves_a_job(jobs: list[Job], timer: type[Event]) -> None:
    """Kills: an expiry of an accepted job, the zombie worker's double run."""
    job = jobs[-1]
    if job.state not in {JobState.DRAFT, JobState.QUEUED, JobState.OFFERED}:
        with pytest.raises(InvalidTransition):
            apply(job, timer(at=NOW))


#: A snapshot that is told twice counts twice: only the last one matters.
COUNTED = {life.Published}
MADE_BY_THE_BROKER = {life.Offered, life.OfferExpired, life.CancelRequested}
ROWS = [(state, kind) for state, row in TRANSITIONS.items() for kind in row]


@pytest.mark.parametrize(("state", "kind"), ROWS, ids=lambda word: getattr(word, "__name__", word))
def test_what_was_applied_is_known_to_be_and_nothing_else_is(
    state: JobState, kind: type[Event]
) -> None:
    """Kills: a `reached` set without a state that its event leads to; a verdict taken for another.

    Events that nobody retries, because the broker makes them itself, have an empty set.
    """
    job = replace(JOB, state=state, epoch=1, instance="one")
    for event in variants(events_of(kind, 1, "one")):
        after = apply(job, event)
        assert already(after, event) == (kind not in MADE_BY_THE_BROKER | COUNTED)
        if isinstance(event, life.SiteVerdict):
            assert not already(after, replace(event, result=b"another"))
            assert not already(after, replace(event, tree="another"))


@given(moments())
def test_what_is_known_as_applied_has_been_overtaken_by_nothing_but_progress(
    moment: tuple[Job, Event],
) -> None:
    """Kills: an event answered with success in a state that it cannot have led to."""
    job, event = moment
    try:
        known = already(job, event)
    except StaleEpoch:
        return
    if known:
        assert job.state in event.reached
        assert attempt(job, event).state in event.reached


@given(moments())
def test_a_result_is_there_exactly_when_a_site_gave_a_verdict(moment: tuple[Job, Event]) -> None:
    """Kills: a verdict whose envelope or tree is dropped; one that is invented."""
    job, _ = moment
    told = job.state in {JobState.SUCCEEDED, JobState.FAILED, JobState.REFUSED, JobState.LOST}
    assert (job.result is not None) or not told
    assert (job.result is None) or job.state.terminal


def test_a_return_that_did_not_go_well_is_a_failure() -> None:
    job = replace(JOB, state=JobState.RETURNING, epoch=1, instance="one")
    event = events_of(life.Returned, 1, "one")
    assert apply(job, event).state is JobState.SUCCEEDED
    assert apply(job, replace(event, ok=False)).state is JobState.FAILED  # type: ignore[call-arg]
    done = apply(job, event)
    assert not already(done, replace(event, ok=False))  # type: ignore[call-arg]


def test_an_offer_names_its_holder_and_its_end_and_an_expiry_forgets_both() -> None:
    queued = replace(JOB, state=JobState.QUEUED, epoch=4)
    offered = apply(queued, life.Offered(at=NOW, instance="two", until=NOW))
    assert (offered.epoch, offered.instance, offered.offer_until) == (5, "two", NOW)
    expired = apply(offered, life.OfferExpired(at=NOW))
    assert (expired.epoch, expired.instance, expired.offer_until) == (5, None, None)
    assert apply(offered, events_of(life.Accepted, 5, "two")).offer_until is None


def test_a_cancel_request_is_remembered_and_moves_nothing() -> None:
    running = replace(JOB, state=JobState.RUNNING)
    asked = apply(running, life.CancelRequested(at=NOW))
    assert (asked.cancel_requested, asked.state) == (True, JobState.RUNNING)


def test_who_declared_a_job_lost_is_kept_and_the_flag_goes_with_the_verdict() -> None:
    job = replace(JOB, state=JobState.RUNNING, epoch=1, instance="one")
    job = replace(job, attention=life.Attention.UNKNOWN_FATE)
    lost = apply(job, events_of(life.DeclaredLost, 1, "one"))
    assert (lost.state, lost.lost_by, lost.attention) == (JobState.LOST, "operator", None)


def test_a_result_is_received_once_and_only_when_there_is_one() -> None:
    with pytest.raises(InvalidTransition):
        life.mark_received(JOB, NOW)
    done = replace(JOB, state=JobState.SUCCEEDED)
    first = life.mark_received(done, NOW)
    assert (first.received_at, first.version) == (NOW, done.version + 1)
    assert life.mark_received(first, NOW + timedelta(days=1)) is first


def test_the_table_cannot_be_changed_by_an_event_that_is_not_in_it() -> None:
    table: Mapping[JobState, Mapping[type[Event], JobState]] = TRANSITIONS
    for state in JobState:
        for kind in KINDS:
            job = replace(JOB, state=state, epoch=1, instance="one")
            event = events_of(kind, 1, "one")
            if kind in table.get(state, {}):
                assert apply(job, event).state in {*table[state].values(), JobState.FAILED}
            else:
                with pytest.raises(InvalidTransition) as refusal:
                    apply(job, event)
                assert refusal.value.params["event"] == kind.__name__
