"""A log in which nothing can be changed, moved, added or taken away unnoticed."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from sekisho.domain.sitelog import ORIGIN, Break, Kind, Record, link, verify

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def chain(count: int) -> list[bytes]:
    lines, previous = [], ORIGIN
    for n in range(count):
        facts = {"n": n, "名前": "結果.csv"}
        record = Record(at=NOW + timedelta(seconds=n), kind=Kind.RELEASED, job="job_x", facts=facts)
        made = link(record, seq=n + 1, previous=previous)
        previous = made.digest
        lines.append(made.line)
    return lines


def test_what_was_written_verifies_to_its_end() -> None:
    last, fault = verify(chain(5))
    assert fault is None
    assert last is not None
    assert (last.seq, last.line) == (5, chain(5)[-1])


def test_an_empty_log_has_no_end_and_no_break() -> None:
    assert verify([]) == (None, None)


def test_a_part_verifies_from_where_it_begins() -> None:
    lines = chain(6)
    middle, _ = verify(lines[:3])
    assert middle is not None
    last, fault = verify(lines[3:], seq=4, previous=middle.digest)
    assert fault is None
    assert last is not None
    assert last.seq == 6


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda x: [x[0], x[1].replace(b'"n":1', b'"n":7'), *x[2:]], Break(3, "chain")),
        (lambda x: [x[0], x[2], x[3]], Break(2, "chain")),
        (lambda x: [x[1], x[0], *x[2:]], Break(1, "chain")),
        (lambda x: [x[0], x[0], *x[1:]], Break(2, "chain")),
        (lambda x: [x[0], b"", *x[1:]], Break(2, "form")),
        (lambda x: [x[0], b"[]", *x[1:]], Break(2, "form")),
        (lambda x: [x[0], b"null", *x[1:]], Break(2, "form")),
        (lambda x: [x[0], b"\xff\xfe", *x[1:]], Break(2, "form")),
        (lambda x: [x[0], b"[" * 100_000, *x[1:]], Break(2, "form")),
        (lambda x: [x[0], x[1][:-1], *x[2:]], Break(2, "form")),
        (lambda x: [x[0].replace(b'"seq":1', b'"seq":2'), *x[1:]], Break(1, "number")),
    ],
)
def test_a_change_is_found_at_its_line(
    change: Callable[[list[bytes]], list[bytes]], found: Break
) -> None:
    _, fault = verify(change(chain(4)))
    assert fault == found


def test_what_stands_before_a_break_is_still_good() -> None:
    lines = chain(4)
    last, fault = verify([*lines[:2], b"torn"])
    assert fault == Break(3, "form")
    assert last is not None
    assert last.seq == 2


def test_a_record_is_one_line_whatever_it_holds() -> None:
    record = Record(at=NOW, kind=Kind.ENDED, job="j", facts={"text": "a\nb\u2028c\r"})
    assert b"\n" not in link(record, seq=1, previous=ORIGIN).line


def test_equal_facts_make_equal_lines_in_whatever_order_they_were_given() -> None:
    one = Record(at=NOW, kind=Kind.ENDED, job="j", facts={"a": 1, "b": 2})
    other = Record(at=NOW, kind=Kind.ENDED, job="j", facts={"b": 2, "a": 1})
    assert link(one, seq=1, previous=ORIGIN) == link(other, seq=1, previous=ORIGIN)
