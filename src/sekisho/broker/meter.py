"""Numbers for the operator: what was counted since the start. Never what a job contains."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from typing import Final

Labels = tuple[tuple[str, str], ...]
#: Upper ends of the latency histogram, in seconds; one more bucket holds the rest.
BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)


class Meter:
    """Counters, gauges and one histogram. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, Labels]] = Counter()
        self._buckets = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0

    def add(self, name: str, amount: int = 1, /, **labels: str) -> None:
        """Add ``amount``, which a gauge may have negative, to the number with these labels."""
        with self._lock:
            self._counts[name, tuple(sorted(labels.items()))] += amount

    def observe(self, seconds: float) -> None:
        """Put one request's duration in the histogram."""
        with self._lock:
            self._buckets[bisect_left(BUCKETS, seconds)] += 1
            self._seconds += seconds

    def get(self, name: str, /, **labels: str) -> int:
        with self._lock:
            return self._counts[name, tuple(sorted(labels.items()))]

    def numbers(self) -> Iterator[tuple[str, Labels, int]]:
        """Return every number, sorted by name and labels."""
        with self._lock:
            items = sorted(self._counts.items())
        return ((name, labels, value) for (name, labels), value in items)

    def histogram(self) -> tuple[list[int], float]:
        """Return the number of requests in each bucket, and the sum of their seconds."""
        with self._lock:
            return list(self._buckets), self._seconds
