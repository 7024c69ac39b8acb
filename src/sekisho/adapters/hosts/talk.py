"""A short talk with a program: bytes in, bytes out, and never more than may be held in memory."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Sequence
from typing import Final

from sekisho.domain.errors import TooLarge

#: The names of as many files as a tree may have, and some more.
MAX_HEARD_BYTES: Final = 160 << 20
_PIECE: Final = 65_536


def talk(argv: Sequence[str], said: bytes, timeout_s: float) -> subprocess.CompletedProcess[bytes]:
    """Run a program with ``said`` as its input, to the end of what it prints.

    Raise subprocess.TimeoutExpired, or TooLarge when it prints without end; it is killed then.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            out, err = _exchanged(process, memoryview(said), time.monotonic() + timeout_s)
            process.wait(max(1.0, timeout_s))
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(argv, process.returncode, out, err)


def _exchanged(
    process: subprocess.Popen[bytes], said: memoryview, end: float
) -> tuple[bytes, bytes]:
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise ValueError(process)
    mouth = process.stdin.fileno()
    os.set_blocking(mouth, False)
    heard = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    with selectors.DefaultSelector() as ready:
        ready.register(mouth, selectors.EVENT_WRITE)
        for fd in heard:
            ready.register(fd, selectors.EVENT_READ)
        while ready.get_map():
            for fd in _ready(ready, end, process):
                if fd == mouth:
                    said = _spoken(mouth, said)
                if not (said if fd == mouth else _listened(fd, heard[fd])):
                    ready.unregister(fd)  # before it is closed: its number is somebody else's then
                    if fd == mouth:
                        process.stdin.close()
    out, err = heard.values()
    return bytes(out), bytes(err)


def _ready(
    ready: selectors.BaseSelector, end: float, process: subprocess.Popen[bytes]
) -> list[int]:
    left = end - time.monotonic()
    events = ready.select(left) if left > 0 else []
    if not events:
        raise subprocess.TimeoutExpired(process.args, left)
    return [key.fd for key, _ in events]


def _spoken(fd: int, said: memoryview) -> memoryview:
    """Write some of ``said``; return the rest, which is nothing when nobody listens."""
    try:
        return said[os.write(fd, said[:_PIECE]) :] if said else said
    except BrokenPipeError:
        return said[:0]


def _listened(fd: int, heard: bytearray) -> bool:
    data = os.read(fd, _PIECE)
    heard += data
    if len(heard) > MAX_HEARD_BYTES:
        raise TooLarge(limit=MAX_HEARD_BYTES)
    return bool(data)
