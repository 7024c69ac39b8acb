"""How long to wait before trying again: exponential, with full jitter, capped.

Full jitter after "Exponential Backoff And Jitter" (M. Brooker, AWS Architecture Blog, 2015).
"""

from __future__ import annotations

from sekisho.domain.limits import BACKOFF_CAP_SECONDS

FIRST_SECONDS = 0.25


def delay(failures: int, roll: float) -> float:
    """Return seconds to wait after ``failures`` (≥ 1) in a row; ``roll`` is uniform in 0..1."""
    exponent = min(max(failures, 1) - 1, 16)
    ceiling: float = min(BACKOFF_CAP_SECONDS, FIRST_SECONDS * 2**exponent)
    return ceiling * roll
