"""Writes of many threads in few transactions: a disk confirms a hundred for the price of one.

What is brought while a transaction is under way shares the next one. When one of those that share
it fails, nothing of it is kept, and each is done again in a transaction of its own.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar

import sqlalchemy as sa

T = TypeVar("T")
Work: TypeAlias = Callable[[sa.Connection], T]
Writing: TypeAlias = Callable[[], AbstractContextManager[sa.Connection]]
#: So many share a transaction: who came first does not wait for an endless row of others.
_MOST: Final = 64


@dataclass(frozen=True, slots=True)
class _Task:
    """What one thread wants to be done; ``done`` is its outcome, durable."""

    work: Work[Any]
    done: Future[Any] = field(default_factory=Future)


class Together:
    """Does works in the transactions that ``writing`` gives; safe to share between threads."""

    def __init__(self, writing: Writing) -> None:
        self._writing = writing
        self._turn = threading.Lock()
        self._waiting: deque[_Task] = deque()  #: popped by who has the turn

    def do(self, work: Work[T]) -> T:
        """Return what ``work`` returns, once it is durable; or raise with nothing of it written."""
        task = _Task(work)
        self._waiting.append(task)
        with self._turn:
            while not task.done.done():
                number = min(len(self._waiting), _MOST)
                self._do_all([self._waiting.popleft() for _ in range(number)])
        outcome: T = task.done.result()
        return outcome

    def _do_all(self, tasks: Sequence[_Task]) -> None:
        results: list[Any] = []
        at_work = False
        try:
            with self._writing() as tx:
                at_work = True
                results.extend(task.work(tx) for task in tasks)
                at_work = False
        except BaseException as error:  # noqa: BLE001 raised by each thread that waits for it
            if at_work and len(tasks) > 1:
                for task in tasks:
                    self._do_all([task])
            else:  # its own; or that of the transaction, which a second try could hide
                for task in tasks:
                    task.done.set_exception(error)
            return
        for task, result in zip(tasks, results, strict=True):
            task.done.set_result(result)
