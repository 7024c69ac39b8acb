"""Ctrl+C and termination while a job is in hand: cancel, detach, or go on.

A signal becomes the exception `Interrupted` in the main thread, which no error handling catches by
accident. At a terminal the user is asked; elsewhere, and at the second signal, we detach: the job
is kept by the broker, and `sekisho wait` finds it again.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, Literal

from sekisho.cli.session import Session

Choice = Literal["cancel", "detach", "go_on"]
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ANSWERS: Final[dict[str, Choice]] = {"c": "cancel", "d": "detach", "g": "go_on"}


class Interrupted(BaseException):
    """A signal asked this process to stop."""

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(signum)


def _raise(signum: int, _frame: FrameType | None) -> None:
    raise Interrupted(signum)


def hear_children() -> None:
    """Learn how children end: whoever started this process may have ignored theirs.

    Ignored, they leave no status, and each counts as one that ended well.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn the signals into `Interrupted` within this block."""
    before = {number: signal.signal(number, _raise) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def choose(session: Session, stop: Interrupted, wish: str | None) -> Choice:
    """Return what shall become of the job: the user's ``wish``, or the answer to a question."""
    if wish in ("cancel", "detach"):
        return "cancel" if wish == "cancel" else "detach"
    if stop.signum != signal.SIGINT or session.silent or not sys.stdin.isatty():
        return "detach"
    try:
        while True:
            print(session.say("interrupt"), end=" ", file=session.err, flush=True)
            answer = sys.stdin.readline()
            if not answer:
                return "detach"
            if (choice := _ANSWERS.get(answer.strip().lower()[:1])) is not None:
                return choice
    except Interrupted:
        print(file=session.err)
        return "detach"
