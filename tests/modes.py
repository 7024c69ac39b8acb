"""Being held back by the modes of files, as an ordinary account is, also when tests run as root."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

#: Puts a command under the modes of files.
ORDINARY = ("setpriv", "--inh-caps=-all", "--bounding-set=-all") if os.geteuid() == 0 else ()
_VERSION = 0x20080522  # of the structures, linux/capability.h
_OVERRIDES = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Half(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


@contextmanager
def obeyed() -> Iterator[None]:
    """Let modes hold this thread back, and those that it starts, until the end of the block."""
    header, halves = _Header(_VERSION, 0), (_Half * 2)()
    _call(_libc.capget(ctypes.byref(header), halves))
    before = halves[0].effective
    halves[0].effective = before & ~_OVERRIDES
    _call(_libc.capset(ctypes.byref(header), halves))
    try:
        yield
    finally:
        halves[0].effective = before
        _call(_libc.capset(ctypes.byref(header), halves))


def _call(result: int) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
