"""The carrier: a process of its own that outlives the connection of whoever wanted it.

<push>/carrier.lock   held by the carrier for as long as it lives; its process id, for people; empty
                      when the last one left because nothing was to be carried
<push>/carrier.wake   a pipe that it reads: a byte makes it look at the jobs at once

The lock is taken before the carrier is forked and held by it alone afterwards, so that there is
never a second one, and never none that seems to be there. Nobody is woken by a process id, which
may be somebody else's by then.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from sekisho.adapters import durable

#: A carrier that dies at once is not started again and again by whoever waits.
_AGAIN_S: Final = 1.0
#: Where the new process has the lock, below every other descriptor.
_PLACE: Final = 3
_HEARD: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class ForkedCarrier:
    """The carrier of the directory ``push``; ``work`` is what it does, in the new process.

    To be used by a process of one thread only. ``work`` gets the descriptor of the lock.
    """

    def __init__(self, push: Path, work: Callable[[int], None]) -> None:
        self._push = push
        self._work = work
        self._tried = -_AGAIN_S

    def ensure(self, *, news: bool) -> None:
        """See to it that there is a carrier; tell it to look at once when there is ``news``."""
        if not self._start() and news:
            self._wake()

    def revive(self) -> None:
        """Start a carrier if the last one did not leave by itself."""
        if self._named():
            self._start()

    def _named(self) -> bool:
        """Say whether there is a carrier, or was one that did not leave by itself."""
        try:
            return (self._push / "carrier.lock").lstat().st_size > 0
        except FileNotFoundError:
            return False

    def _start(self) -> bool:
        """Start a carrier if there is none; say whether it was started.

        Whoever holds the lock becomes the carrier: to hold it for a look would hide that there is
        none.
        """
        if time.monotonic() - self._tried < _AGAIN_S and self._named():
            return False
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = os.open(self._push / "carrier.lock", flags, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._tried = time.monotonic()
            self._fork(lock)
        except BlockingIOError:  # there is one; or no room for one, and the next look tries again
            return False
        except OSError as error:
            raise durable.translated(error) from error
        finally:
            os.close(lock)
        return True

    def _wake(self) -> None:
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        with suppress(OSError):  # nobody reads yet: it looks when it begins; full: it will look
            pipe = os.open(self._push / "carrier.wake", flags)
            try:
                os.write(pipe, b"!")
            finally:
                os.close(pipe)

    def _fork(self, lock: int) -> None:
        """Become the grandparent of a carrier: nobody here has to wait for its end."""
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"?\n", 0)
        if (child := os.fork()) != 0:
            os.waitpid(child, 0)
            return
        try:
            if os.fork() == 0:
                self._carry(lock)
        finally:
            os._exit(70)

    def _carry(self, lock: int) -> None:
        try:
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
            os.setsid()
            for number in _HEARD:  # what the gate ignored; commands would inherit it
                signal.signal(number, signal.SIG_DFL)
            self._leave_streams(lock)
            self._work(_PLACE)
        except Exception:  # boundary: this process ends here, and its log says why
            import structlog  # noqa: PLC0415 (a gate that only answers needs none of it)

            log = structlog.get_logger()
            log.exception("carrier_crashed")

    def _leave_streams(self, lock: int) -> None:
        """Let go of the connection: it must be able to end without us."""
        null = os.open(os.devnull, os.O_RDWR)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        said = os.open(self._push / "carrier.log", flags, 0o600)
        for place, source in ((0, null), (1, null), (2, said)):
            os.dup2(source, place)
        if lock != _PLACE:
            os.dup2(lock, _PLACE, inheritable=False)
        os.closerange(_PLACE + 1, os.sysconf("SC_OPEN_MAX"))


def opened_wake(push: Path) -> int:
    """Return the descriptor on which a carrier hears that it is to look."""
    pipe = push / "carrier.wake"
    with suppress(FileExistsError):
        os.mkfifo(pipe, 0o600)
    return os.open(pipe, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)


def leave(lock: int) -> None:
    """End this carrier: nothing is to be carried. To be called with the store locked."""
    os.ftruncate(lock, 0)
    os.close(lock)
    os._exit(0)
