"""Waiting for many jobs of one host with few questions: one look serves all who wait.

While a look is under way, whoever comes later waits for a second one; never are there more. A look
for one job alone may last long; one for several comes back soon, for others may have joined them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from sekisho.adapters.hosts.bare import Seen
from sekisho.domain.errors import Unavailable

Look = Callable[[Mapping[str, str], float], tuple[datetime, dict[str, Seen]]]
_LOOKS: Final = 2
_SHARED_S: Final = 3.0


class Watch:
    """The one who looks, for all threads of this process."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._changed = threading.Condition()
        self._wanted: dict[str, str] = {}
        self._covered: set[str] = set()
        self._looks = 0
        self._news: dict[str, tuple[int, Seen | Exception]] = {}
        self._count = 0

    def news(self, job_id: str, word: str, wait_s: float) -> Seen:
        """Return the job as it is, at once when it is not as ``word`` says, else after a while."""
        end = time.monotonic() + wait_s
        with self._changed:
            self._wanted[job_id] = word
            since = self._count
            while (told := self._news.get(job_id)) is None or told[0] <= since:
                if job_id not in self._covered and self._looks < _LOOKS:
                    self._lead(end)
                else:
                    self._changed.wait(1.0)
        if isinstance(told[1], Exception):
            raise told[1]
        return told[1]

    def _lead(self, end: float) -> None:
        """Look for all whom no other look covers, with the lock given away meanwhile."""
        batch = {j: w for j, w in self._wanted.items() if j not in self._covered}
        alone = len(batch) == 1 and self._looks == 0
        wait_s = max(0.0, end - time.monotonic())
        self._covered |= batch.keys()
        self._looks += 1
        self._changed.release()
        try:
            found = self._look(batch, wait_s if alone else min(wait_s, _SHARED_S))[1]
        except BaseException as error:
            self._changed.acquire()
            self._post(batch, error if isinstance(error, Exception) else Unavailable())
            if not isinstance(error, Exception):
                raise
        else:
            self._changed.acquire()
            self._post(batch, found)

    def _post(self, batch: Mapping[str, str], found: dict[str, Seen] | Exception) -> None:
        self._looks -= 1
        self._count += 1
        self._covered -= batch.keys()
        for job_id in batch:
            self._wanted.pop(job_id, None)
            told = found if isinstance(found, Exception) else found[job_id]
            self._news[job_id] = (self._count, told)
        self._changed.notify_all()
