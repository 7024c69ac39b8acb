"""Working on several pieces at once, in order and in bounded memory.

Hashing, compressing, reading and writing leave the interpreter's lock, so threads are enough to
use every core and to keep several requests on the way.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import Final, TypeVar

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
    tasks: SimpleQueue[tuple[Future[R], T] | None] = SimpleQueue()
    begun: deque[Future[R]] = deque()
    failed: list[Exception] = []
    for _ in range(threads):
        threading.Thread(target=_work, args=(work, tasks), daemon=True).start()
    try:
        for item in _until_failure(items, failed):
            begun.append(Future())
            tasks.put((begun[-1], item))
            if len(begun) >= ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        running = [future for future in begun if not future.cancel()]
        if settle:
            wait(running)
        for _ in range(threads):
            tasks.put(None)
    if failed:
        raise failed[0]


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
