"""Leases: the kernel's word that nobody has a file open for writing, by any name or mapping.

Whoever opens it for writing breaks it, and waits until it is given up, for 45 seconds at most; we
are told by a signal. A name that comes or goes, a mode or a time does not break it. It lasts as
long as one of the descriptors of the same open file. A file that we write ourselves can be had
alone: then whoever opens it at all breaks the lease. Facts: fcntl(2), "Leases".
"""

from __future__ import annotations

import fcntl
import signal
import threading
from collections.abc import Callable
from typing import Final

from sekisho.transfer.mount import kind_of

#: Where a lease tells all there is: elsewhere another machine, or another mount, may write past it.
_SURE: Final = frozenset({"ext4", "xfs", "btrfs", "f2fs", "tmpfs"})
#: Ignored where nobody heeds it, unlike the usual one.
_BROKEN: Final = signal.SIGURG


def heed(give_way: Callable[[], None]) -> None:
    """From now on call ``give_way``, in the main thread, when a lease of this process is broken.

    Without, as in a thread of somebody's own program, whoever wants to write waits longer.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(_BROKEN, lambda _number, _frame: give_way())


def vouches(fd: int) -> bool:
    """Say whether the file system of ``fd`` is one on which a lease means what it should."""
    return kind_of(fd) in _SURE


def lease(fd: int) -> bool:
    """Take a lease on what is open for reading at ``fd``; say whether it was to be had."""
    return _taken(fd, fcntl.F_RDLCK)  # not while somebody writes


def leased(fd: int) -> bool:
    """Say whether the lease was held all the time, and is."""
    return fcntl.fcntl(fd, fcntl.F_GETLEASE) == fcntl.F_RDLCK


def lease_alone(fd: int) -> bool:
    """Take a lease on what nobody but us has open, by ``fd``; say whether it was to be had."""
    return _taken(fd, fcntl.F_WRLCK)


def leased_alone(fd: int) -> bool:
    """Say whether nobody else has opened it all the time: a reader, too, breaks this lease."""
    return fcntl.fcntl(fd, fcntl.F_GETLEASE) == fcntl.F_WRLCK


def _taken(fd: int, kind: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, _BROKEN)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, kind)
    except OSError:
        return False
    return True
