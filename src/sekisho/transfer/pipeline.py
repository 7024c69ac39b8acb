"""Working on several pieces at once, in order and in bounded memory.

Hashing, compressing, reading and writing leave the interpreter's lock, so threads are enough to
use every core and to keep several requests on the way.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Final, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")
CORES: Final = min(4, os.cpu_count() or 1)


def mapped(
    work: Callable[[T], R],
    items: Iterable[T],
    *,
    threads: int = CORES,
    ahead: int = 2 * CORES,
    settle: bool = False,
) -> Iterator[R]:
    """Return ``work`` of every item, in order; at most ``ahead`` are begun and not yet taken.

    ``items`` is read by the caller's thread. When it fails, what it gave before still comes first.
    Whoever stops early, or is interrupted, waits for nobody: what has begun ends by itself, unseen.
    With ``settle`` it is waited for, as where it uses descriptors that are closed afterwards.
    """
    return _mapped(work, items, _Crew(threads, ahead, settle=settle))


def as_done(work: Callable[[T], R], items: Iterable[T], *, threads: int, ahead: int) -> Iterator[R]:
    """Return what `mapped` does, each result when it is there: nobody waits for the slowest."""
    return _mapped(work, items, _Crew(threads, ahead, ordered=False))


@dataclass(frozen=True, slots=True)
class _Crew:
    threads: int
    ahead: int
    settle: bool = False
    ordered: bool = True


def _mapped(work: Callable[[T], R], items: Iterable[T], crew: _Crew) -> Iterator[R]:
    tasks: SimpleQueue[tuple[Future[R], T] | None] = SimpleQueue()
    begun: deque[Future[R]] = deque()
    failed: list[Exception] = []
    for _ in range(crew.threads):
        threading.Thread(target=_work, args=(work, tasks), daemon=True).start()
    try:
        for item in _until_failure(items, failed):
            begun.append(Future())
            tasks.put((begun[-1], item))
            if len(begun) >= crew.ahead:
                yield _taken(begun, ordered=crew.ordered)
        while begun:
            yield _taken(begun, ordered=crew.ordered)
    finally:
        running = [future for future in begun if not future.cancel()]
        if crew.settle:
            wait(running)
        for _ in range(crew.threads):
            tasks.put(None)
    if failed:
        raise failed[0]


def _taken(begun: deque[Future[R]], *, ordered: bool) -> R:
    """Return the result of the first of ``begun``, or of one that is done, and forget it."""
    if ordered:
        return begun.popleft().result()
    done = next(iter(wait(begun, return_when=FIRST_COMPLETED).done))
    begun.remove(done)
    return done.result()


def _until_failure(items: Iterable[T], failed: list[Exception]) -> Iterator[T]:
    try:
        yield from items
    except Exception as error:  # noqa: BLE001 (kept, and raised when its turn comes)
        failed.append(error)


def _work(work: Callable[[T], R], tasks: SimpleQueue[tuple[Future[R], T] | None]) -> None:
    while (task := tasks.get()) is not None:
        future, item = task
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(work(item))
        except BaseException as error:  # noqa: BLE001 (raised to whoever takes the result)
            future.set_exception(error)
        del task, future, item  # a piece that was taken is not held until the next one comes


def flowed(
    work: Callable[[T], Iterator[R]], items: Iterable[T], *, threads: int, ahead: int
) -> Iterator[R]:
    """Return all that ``work`` gives for every item, as it comes, of ``threads`` items at a time.

    At most ``ahead`` results wait to be taken. When one item fails no other is begun; what those in
    work give still comes, then the error. Whoever stops early waits for nobody, as in `mapped`.
    """
    flow = _Flow(work, items, ahead)
    for _ in range(threads):
        threading.Thread(target=flow.run, daemon=True).start()
    failed: list[BaseException] = []
    try:
        while threads:
            come = flow.come.get()
            if isinstance(come, _Result):
                flow.room.release()
                yield come.given
                continue
            threads -= 1
            failed += [] if come is None else [come]
    finally:
        flow.left = flow.over = True
        flow.room.release(threads + 1)
    if failed:
        raise failed[0]


@dataclass(frozen=True, slots=True)
class _Result(Generic[R]):
    given: R


class _Flow(Generic[T, R]):
    """What the threads of `flowed` share: items to begin, room for results, and these."""

    def __init__(self, work: Callable[[T], Iterator[R]], items: Iterable[T], ahead: int) -> None:
        self._work = work
        self._items = iter(items)
        self._guard = threading.Lock()
        self.come: SimpleQueue[_Result[R] | BaseException | None] = SimpleQueue()
        self.room = threading.Semaphore(ahead)
        self.over = False  #: no other item is begun
        self.left = False  #: nobody takes results any more

    def run(self) -> None:
        """Work on items for as long as there are any; then say so, or what went wrong."""
        error: BaseException | None = None
        try:
            for item in self._begun():
                for result in self._work(item):
                    self.room.acquire()
                    if self.left:
                        return
                    self.come.put(_Result(result))
                    del result  # what was taken is not held until the next one comes
        except BaseException as raised:  # noqa: BLE001 (raised to whoever takes the results)
            self.over, error = True, raised
        self.come.put(error)

    def _begun(self) -> Iterator[T]:
        while not self.over:
            with self._guard:
                item = next(self._items, _NONE)
            if isinstance(item, _None):
                return
            yield item


class _None:
    """Stands for no item: None may be one."""


_NONE: Final = _None()
