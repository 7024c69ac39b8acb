"""The carrier: a process of its own that outlives the connection of whoever wanted it.

Its lock is taken before it is forked and held by it alone afterwards, so that there is never a
second one, and never none that seems to be there. It leaves when nothing is left to carry.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

WAKE = signal.SIGUSR1


class ForkedCarrier:
    """The carrier whose lock is the file ``lock``; ``work`` is what it does, in the new process.

    To be used by a process of one thread only.
    """

    def __init__(self, lock: Path, log: Path, work: Callable[[int], None]) -> None:
        self._lock = lock
        self._log = log
        self._work = work
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead are nobody's to wait for
        signal.signal(WAKE, signal.SIG_IGN)  # inherited: no early wake-up ends a new carrier

    def ensure(self) -> None:
        """Wake the carrier, or start one."""
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _wake(descriptor)
        else:
            self._fork(descriptor)
        finally:
            os.close(descriptor)

    def present(self) -> bool:
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _fork(self, descriptor: int) -> None:
        os.ftruncate(descriptor, 0)
        if os.fork() != 0:
            return
        try:
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            os.setsid()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._leave_streams(descriptor)
            self._work(descriptor)
        finally:
            os._exit(0)

    def _leave_streams(self, descriptor: int) -> None:
        """Let go of the connection: it must be able to end without us."""
        null = os.open(os.devnull, os.O_RDWR)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        said = os.open(self._log, flags, 0o600)
        for place, source in ((0, null), (1, null), (2, said)):
            os.dup2(source, place)
        highest = os.sysconf("SC_OPEN_MAX")
        os.closerange(3, descriptor)
        os.closerange(descriptor + 1, highest)


def _wake(descriptor: int) -> None:
    pid = os.pread(descriptor, 32, 0).strip()
    if pid.isdigit():
        with suppress(ProcessLookupError):
            os.kill(int(pid), WAKE)
