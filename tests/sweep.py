"""How closely tests look that could fail at each of very many places.

`./dev test --sweep` takes all. Otherwise it is some, and the same every time.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Final

FULL: Final = os.environ.get("SEKISHO_SWEEP") == "full"


def places(apart: int, first: int = 1) -> Iterator[int]:
    """Count places: every one from the first on, or from ``first`` on those ``apart``."""
    return itertools.count(1) if FULL else itertools.count(first, apart)
