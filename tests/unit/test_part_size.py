"""How parts grow and shrink."""

from __future__ import annotations

from sekisho.adapters.part_size import LONGEST_BYTES, PartSize
from sekisho.domain.limits import MAX_PART_BYTES


def grown(size: PartSize) -> int:
    for _ in range(20):
        size.bore(size.bytes, 0.1)
    return size.bytes


def test_parts_begin_below_the_limit_of_a_default_proxy_and_grow() -> None:
    assert PartSize().bytes == MAX_PART_BYTES < 1 << 20
    assert grown(PartSize()) == LONGEST_BYTES


def test_parts_do_not_grow_on_a_slow_line_or_when_they_are_not_full() -> None:
    size = PartSize()
    size.bore(MAX_PART_BYTES, 1.5)
    size.bore(100, 0.1)
    assert size.bytes == MAX_PART_BYTES


def test_what_was_refused_is_not_tried_again() -> None:
    size = PartSize()
    size.bore(MAX_PART_BYTES, 0.1)
    size.refused(2 * MAX_PART_BYTES)
    assert grown(size) == MAX_PART_BYTES


def test_a_first_part_that_is_refused_is_halved() -> None:
    size = PartSize()
    size.refused(MAX_PART_BYTES)
    assert size.bytes == MAX_PART_BYTES // 2


def test_after_a_cut_parts_are_short_and_grow_again() -> None:
    size = PartSize()
    longest = grown(size)
    size.cut(longest)
    assert size.bytes == MAX_PART_BYTES
    assert grown(size) == longest


def test_a_line_that_breaks_under_a_length_never_borne_is_not_tried_with_it_again() -> None:
    size = PartSize()
    size.bore(MAX_PART_BYTES, 0.1)
    size.cut(2 * MAX_PART_BYTES)
    assert grown(size) == MAX_PART_BYTES


def test_a_length_never_borne_is_tried_by_one_of_several() -> None:
    size = PartSize()
    size.bore(MAX_PART_BYTES, 0.1)
    assert [size.begin() for _ in range(40)] == [2 * MAX_PART_BYTES, *[MAX_PART_BYTES] * 39]
    size.bore(2 * MAX_PART_BYTES, 0.1)
    assert size.begin() > 2 * MAX_PART_BYTES
    assert size.begin() == 2 * MAX_PART_BYTES


def test_others_that_get_through_are_no_news_of_the_one_on_trial() -> None:
    """Killed by: trying again whenever a part of the usual length is the longest so far."""
    size = PartSize()
    size.bore(MAX_PART_BYTES - 100, 0.1)
    assert size.begin() == 2 * MAX_PART_BYTES
    for longer in range(40):
        size.bore(MAX_PART_BYTES - 99 + longer, 0.1)
        assert size.begin() == MAX_PART_BYTES
    size.bore(MAX_PART_BYTES + 1, 0.1)
    assert size.begin() > 2 * MAX_PART_BYTES


def test_a_length_of_which_nothing_was_heard_is_tried_again() -> None:
    size = PartSize()
    size.bore(MAX_PART_BYTES, 0.1)
    begun = [size.begin() for _ in range(400)]
    assert 3 <= begun.count(2 * MAX_PART_BYTES) <= 10


def test_a_way_that_bears_less_than_the_first_part_is_not_tried_with_more() -> None:
    size = PartSize()
    size.refused(MAX_PART_BYTES)
    assert [size.begin() for _ in range(3)] == [MAX_PART_BYTES // 2] * 3
