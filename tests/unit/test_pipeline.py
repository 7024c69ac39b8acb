"""Working ahead: in order, in bounds, and with clean ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from sekisho.transfer.pipeline import as_done, flowed, mapped


def test_results_come_in_order_whoever_is_done_first() -> None:
    second_done = threading.Event()

    def work(n: int) -> int:
        if n == 0:
            assert second_done.wait(10)
        if n == 1:
            second_done.set()
        return n * n

    assert list(mapped(work, range(50), threads=2, ahead=4)) == [n * n for n in range(50)]


def test_no_more_is_begun_than_may_be_held() -> None:
    given: list[int] = []

    def items() -> Iterator[int]:
        for n in range(100):
            given.append(n)
            yield n

    for taken, _ in enumerate(mapped(lambda n: n, items(), threads=2, ahead=5)):
        assert len(given) <= taken + 5


def test_what_was_given_before_a_failure_comes_before_the_failure() -> None:
    def items() -> Iterator[int]:
        yield from (1, 2, 3)
        raise KeyError("cut")

    seen: list[int] = []
    with pytest.raises(KeyError, match="cut"):
        seen.extend(mapped(lambda n: n, items(), threads=2, ahead=8))
    assert seen == [1, 2, 3]


def test_failed_work_is_told_in_its_turn_and_ends_the_rest() -> None:
    done: list[int] = []

    def work(n: int) -> int:
        done.append(n)
        return 1 // (n - 3)

    with pytest.raises(ZeroDivisionError):
        list(mapped(work, range(1000), threads=1, ahead=2))
    assert len(done) < 10


def test_who_stops_early_waits_for_nobody_and_leaves_no_thread_behind() -> None:
    release, before = threading.Event(), set(threading.enumerate())

    def work(n: int) -> int:
        if n:
            release.wait(10)
        return n

    results = mapped(work, range(10), threads=2, ahead=3)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    workers = set(threading.enumerate()) - before
    assert len(workers) >= 1  # still at work
    release.set()
    for worker in workers:
        worker.join(10)
        assert not worker.is_alive()


def test_who_settles_returns_only_when_nothing_is_at_work() -> None:
    """Kills: closing a descriptor under work that has begun."""
    begun, at_work = threading.Event(), threading.Event()

    def work(item: int) -> None:
        if item == 0:
            begun.wait(10)
            raise ValueError(item)
        at_work.set()
        begun.set()
        ended.wait(0.2)
        at_work.clear()

    ended = threading.Event()
    with pytest.raises(ValueError, match="0"):
        list(mapped(work, [0, 1], threads=2, ahead=2, settle=True))
    assert not at_work.is_set()


def test_whoever_is_done_first_is_taken_first_and_others_are_begun() -> None:
    """Kills: connections that idle until the slowest part has arrived."""
    last = threading.Event()

    def work(n: int) -> int:
        if n == 0:
            assert last.wait(30)
        if n == 9:
            last.set()
        return n

    done = list(as_done(work, range(10), threads=2, ahead=3))
    assert sorted(done) == list(range(10))
    assert done.index(0) > 5


def test_what_flows_comes_from_several_items_at_a_time() -> None:
    """Kills: one item after the other."""
    other = threading.Event()

    def work(item: int) -> Iterator[tuple[int, int]]:
        yield item, 0
        if item == 0:
            assert other.wait(30)
        else:
            other.set()
        yield item, 1

    came = list(flowed(work, range(4), threads=2, ahead=2))
    assert sorted(came) == [(item, n) for item in range(4) for n in range(2)]
    assert all(came.index((item, 0)) < came.index((item, 1)) for item in range(4))


def test_no_more_flows_than_may_be_held() -> None:
    given: list[int] = []

    def work(item: int) -> Iterator[int]:
        for n in range(100):
            given.append(n)
            yield item

    for taken, _ in enumerate(flowed(work, range(2), threads=2, ahead=3)):
        assert len(given) <= taken + 1 + 3 + 2  # taken, held, and one in each hand


def test_after_a_failure_nothing_is_begun_and_what_was_begun_still_comes() -> None:
    failed = threading.Event()
    begun: list[int] = []

    def work(item: int) -> Iterator[int]:
        begun.append(item)
        if item == 0:
            yield item
            failed.set()
            raise KeyError("cut")
        assert failed.wait(30)
        yield from range(10, 15)

    came: list[int] = []
    with pytest.raises(KeyError, match="cut"):
        came.extend(flowed(work, range(100), threads=2, ahead=2))
    assert 0 in came
    assert len(begun) < 10
    assert came.count(14) == len(begun) - 1


def test_whoever_leaves_a_flow_waits_for_nobody_and_leaves_no_thread_behind() -> None:
    release, before = threading.Event(), set(threading.enumerate())

    def work(item: int) -> Iterator[int]:
        yield item
        release.wait(30)
        yield from range(100)

    results = flowed(work, range(3), threads=3, ahead=3)
    assert next(results) in range(3)
    results.close()  # type: ignore[attr-defined]
    workers = set(threading.enumerate()) - before
    assert workers  # still at work
    release.set()
    for worker in workers:
        worker.join(30)
        assert not worker.is_alive()
