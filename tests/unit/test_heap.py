"""One heap for all threads: seen by the library's own account of it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

ACCOUNT = """
import ctypes, sys, threading
from sekisho.adapters.heap import share_heap
if sys.argv[1] == "shared":
    share_heap()
libc, all_hold = ctypes.CDLL(None), threading.Barrier(5)
def hold():
    held = bytes(100_000)
    all_hold.wait(30)
    all_hold.wait(30)
threads = [threading.Thread(target=hold) for _ in range(4)]
for thread in threads:
    thread.start()
all_hold.wait(30)
libc.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
all_hold.wait(30)
"""


@pytest.mark.parametrize(("how", "one"), [("shared", True), ("as it is", False)])
def test_threads_share_one_heap_when_told_to(how: str, one: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ACCOUNT, how], capture_output=True, text=True, check=True, timeout=60
    )
    heaps = re.findall(r"<heap nr=", done.stdout)
    assert heaps
    assert (len(heaps) == 1) is one
