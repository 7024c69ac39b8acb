"""A long log in which nothing can be changed without the first bad record being named."""

from __future__ import annotations

import functools
import json
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.domain.sitelog import ORIGIN, Break, Kind, Link, Record, link, verify
from tests.world import NOW

COUNT = 10_000
sampled = settings(deadline=None, max_examples=30)  # each reads 10,000 records
places = st.integers(0, COUNT - 1)


@functools.cache
def chain() -> tuple[Link, ...]:
    made: list[Link] = []
    previous = ORIGIN
    for number in range(COUNT):
        record = Record(
            at=NOW + timedelta(seconds=number),
            kind=list(Kind)[number % len(Kind)],
            job="job_x",
            facts={"n": number, "名": "値"},
        )
        made.append(link(record, seq=number + 1, previous=previous))
        previous = made[-1].digest
    return tuple(made)


def lines() -> list[bytes]:
    return [one.line for one in chain()]


def found(changed: list[bytes]) -> tuple[int, int | None]:
    """Return the number of the last good record and the line of the first bad one."""
    last, broken = verify(changed)
    return last.seq if last else 0, broken.line if broken else None


def test_an_untouched_log_verifies() -> None:
    assert verify(lines()) == (chain()[-1], None)


@sampled
@given(place=st.integers(0, COUNT - 2))
def test_a_deleted_record_is_missed_where_it_was(place: int) -> None:
    """Kills: not comparing `prev`, comparing only numbers."""
    changed = lines()
    del changed[place]
    assert found(changed) == (place, place + 1)


@sampled
@given(place=places, at=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_an_edited_record_is_named_or_betrayed_by_the_next(place: int, at: int, byte: int) -> None:
    """Kills: a digest over parts of the line, or over a decoded form of it."""
    changed = lines()
    line = bytearray(changed[place])
    at %= len(line)
    line[at] = byte
    changed[place] = bytes(line)
    if changed == lines():
        assert found(changed) == (COUNT, None)
    elif place == COUNT - 1:  # nothing follows that would betray it but its own number and chain
        last, broken = verify(changed)
        assert broken is not None or (last is not None and last.digest != chain()[-1].digest)
    else:
        good, bad = found(changed)
        assert (good, bad) in {(place, place + 1), (place + 1, place + 2)}


@sampled
@given(first=places, second=places)
def test_records_that_changed_places_are_named_at_the_first(first: int, second: int) -> None:
    """Kills: verifying each record by itself."""
    changed = lines()
    changed[first], changed[second] = changed[second], changed[first]
    expected = (COUNT, None) if first == second else (min(first, second), min(first, second) + 1)
    assert found(changed) == expected


@sampled
@given(place=places, bytes_kept=st.integers(1, 60))
def test_a_log_that_was_cut_within_a_record_ends_there(place: int, bytes_kept: int) -> None:
    """Kills: taking the beginning of a record for one."""
    changed = [*lines()[:place], lines()[place][:bytes_kept]]
    assert found(changed) == (place, place + 1)


@sampled
@given(place=places)
def test_a_log_that_was_cut_between_records_ends_with_another_number(place: int) -> None:
    """What verifies is the part; a receipt for a later record then names what is missing.

    Kills: returning no last link, or the wrong one.
    """
    last, broken = verify(lines()[:place])
    assert broken is None
    assert last == (chain()[place - 1] if place else None)


@sampled
@given(place=st.integers(0, COUNT - 1))
def test_a_fork_is_named_where_the_other_branch_begins(place: int) -> None:
    """Two agents that wrote on from the same record. Kills: allowing a number twice."""
    before = chain()[place - 1].digest if place else ORIGIN
    other = Record(at=NOW, kind=Kind.RELEASED, job="job_y", facts={})
    branch = link(other, seq=place + 1, previous=before)
    changed = [*lines()[: place + 1], branch.line, *lines()[place + 1 :]]
    assert found(changed) == (place + 1, place + 2)


@sampled
@given(place=places)
def test_a_record_put_in_with_a_right_number_and_a_wrong_chain_is_named(place: int) -> None:
    """Kills: comparing numbers only."""
    body = json.loads(lines()[place])
    body["prev"] = "f" * 64
    forged = json.dumps(body, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    changed = lines()
    changed[place] = forged
    assert found(changed) == (place, place + 1)
    assert verify(changed)[1] == Break(place + 1, "chain")
