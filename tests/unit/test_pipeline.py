"""Working ahead: in order, in bounds, and with clean ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from sekisho.transfer.pipeline import mapped


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
