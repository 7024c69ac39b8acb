"""Making a word of the command line unreadable for other users, as soon as it was read.

Linux shows the arguments of a process from its own memory, so overwriting them there hides them.
Elsewhere nothing is done, and `hidden` says so.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Final

#: Where /proc/self/stat says where the arguments begin and end, counted after the name.
_START, _END = 45, 46
_FILLER: Final = b"x"


def hidden(word: str) -> bool:
    """Overwrite ``word`` wherever it is an argument of this process; say whether it was done."""
    sys.argv[:] = [argument.replace(word, "…") for argument in sys.argv]
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[_START]), int(fields[_END])
    except (OSError, ValueError, IndexError):
        return False
    return start < end and _overwritten(start, end, word.encode())


def _overwritten(start: int, end: int, word: bytes) -> bool:
    arguments = ctypes.string_at(start, end - start)
    at = arguments.find(word)
    while at >= 0:
        ctypes.memset(start + at, _FILLER[0], len(word))
        at = arguments.find(word, at + len(word))
    return word not in ctypes.string_at(start, end - start)
