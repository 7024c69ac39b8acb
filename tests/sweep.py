"""How closely tests look that could fail at each of very many places.

`./dev test --sweep` takes all. Otherwise it is some, each day others: all of them within days.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from typing import Final

FULL: Final = os.environ.get("SEKISHO_SWEEP") == "full"
_TODAY: Final = int(time.time()) // 86_400


def places(apart: int) -> Iterator[int]:
    """Count places from the first on: every one, or from one of the first on those ``apart``."""
    return itertools.count(1) if FULL else itertools.count(1 + _TODAY % apart, apart)
