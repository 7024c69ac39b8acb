"""The heap of a program whose many threads pass on large pieces.

glibc gives every few threads a heap of their own. What one frees the others cannot use; each gives
it back to the system, and asks for it again, page by page, for the next piece.
"""

from __future__ import annotations

import ctypes
from typing import Final

_ARENA_MAX: Final = -8  #: M_ARENA_MAX of <malloc.h>


def share_heap() -> None:
    """Let all threads that are still to come use one heap, where the library has several."""
    tell = getattr(ctypes.CDLL(None), "mallopt", None)
    if tell is not None:
        tell(_ARENA_MAX, 1)
