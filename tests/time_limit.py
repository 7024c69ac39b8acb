"""A bound for each part of each test, so that one that waits for ever costs one test, not a night.

A set-up, call or tear-down that takes longer than `LIMIT_S`, or than `@pytest.mark.time_limit(s)`
says, fails wherever its main thread waits, and its report shows what every thread and task did.
Where Python does not come back from C to be told so, the process writes its stacks to stderr and
ends after twice the time: pytest-xdist fails that test and goes on in a new worker. On SIGTERM a
whole run with workers ends and names the tests that were running.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from types import FrameType
from typing import Any, Final, NoReturn, TypeVar

import pytest

T = TypeVar("T")
LIMIT_S: Final = 300.0
EXIT_S: Final = 60.0  #: how long threads that a test left behind may delay the end of the process
_STDERR: Final = pytest.StashKey[int]()


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", f"time_limit(seconds): for each of a test's three parts; usually {LIMIT_S:.0f}"
    )
    config.stash[_STDERR] = os.dup(2)  # pytest lays its own file over 2 while a test runs
    if config.pluginmanager.hasplugin("dsession"):
        config.pluginmanager.register(_Running())


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # whoever leads the workers ends them in time
        faulthandler.dump_traceback_later(EXIT_S, exit=True, file=config.stash[_STDERR])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    with _bounded(item, "setup"):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    with _bounded(item, "call"):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    with _bounded(item, "teardown"):
        return (yield)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let each worker begin with what may take long: it would run alone at the end."""
    slow = sorted((item for item in items if _limit(item) > LIMIT_S), key=_limit, reverse=True)
    usual = [item for item in items if _limit(item) <= LIMIT_S]
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    items[:] = spread(slow, usual, workers)


def spread(slow: Sequence[T], usual: Sequence[T], workers: int) -> list[T]:
    """Return all of them so that each of as many equal shares as ``workers`` begins with slow ones.

    Shares are as pytest-xdist makes them: the first worker gets the first of them.
    """
    found: list[T] = []
    total, rest = len(slow) + len(usual), iter(usual)
    for worker in range(workers):
        first = slow[worker::workers]
        share = (total - len(found)) // (workers - worker)
        found += [*first, *islice(rest, max(0, share - len(first)))]
    return [*found, *rest]


def _limit(item: pytest.Item) -> float:
    mark = item.get_closest_marker("time_limit")
    return float(mark.args[0]) if mark else LIMIT_S


@contextmanager
def _bounded(item: pytest.Item, part: str) -> Iterator[None]:
    """Fail what runs longer than allowed; say so again and again to what swallows it."""
    limit = _limit(item)

    def too_long(_: int, __: FrameType | None) -> NoReturn:
        item.add_report_section(part, "stacks", _stacks())
        pytest.fail(f"the test's {part} took longer than {limit:g} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, limit, limit / 4)
    faulthandler.dump_traceback_later(2 * limit, exit=True, file=item.config.stash[_STDERR])
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _stacks() -> str:
    """Return what the other threads do, and what each task of this one's loop waits for."""
    told: list[str] = []
    frames = sys._current_frames()  # noqa: SLF001 - there is no other way
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and thread.ident in frames:
            told += [f"thread {thread.name}:\n", *traceback.format_stack(frames[thread.ident])]
    with suppress(RuntimeError):  # no loop runs here
        for task in asyncio.all_tasks():
            told += [f"task {task.get_name()}:\n", *_awaited(task.get_coro())]
    return "".join(told)


def _awaited(waiting: Any) -> Iterator[str]:
    """Tell the frames of a suspended coroutine, each of which waits for the next."""
    while (frame := getattr(waiting, "cr_frame", None)) is not None:
        yield from traceback.format_stack(frame, limit=1)
        waiting = waiting.cr_await


class _Running:
    """In the process that leads the workers: which tests run at the moment, and since when."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def pytest_sessionstart(self) -> None:
        signal.signal(signal.SIGTERM, self._end)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._since[nodeid] = time.monotonic()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._since.pop(nodeid, None)

    def _end(self, _: int, __: FrameType | None) -> NoReturn:
        now = time.monotonic()
        tests = (f"{nodeid}, for {now - since:.0f} s" for nodeid, since in self._since.items())
        pytest.exit("\n  ".join(("ended by SIGTERM while these ran:", *tests)), 128 + 15)
