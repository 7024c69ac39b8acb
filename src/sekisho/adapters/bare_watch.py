"""Waiting for many jobs of one host with few questions: one look serves all who wait.

While a look is under way, whoever comes later waits for another one; of calm jobs there are never
more than two. A look for one job alone may last long. One for several comes back soon, for others
may have joined them; later the longer none of them has changed.
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
_CALM_LOOKS: Final = 2
LOOKS: Final = 4
_SHARED_S: Final = 3.0
_LONGEST_SHARED_S: Final = 20.0
#: A tenth of the time without news is waited for the next; jobs that had some lately are lively.
_SHARE: Final = 0.1
_CALM_S: Final = _SHARED_S / _SHARE


class Watch:
    """The one who looks, for all threads of this process."""

    def __init__(self, look: Look, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._look = look
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._wanted: dict[str, str] = {}
        self._last: dict[str, tuple[str, float]] = {}  #: the words last seen, and since when
        self._covered: set[str] = set()
        self._looks = 0
        self._news: dict[str, tuple[int, Seen | Exception]] = {}
        self._count = 0

    def news(self, job_id: str, word: str, wait_s: float) -> Seen:
        """Return the job as it is, at once when it is not as ``word`` says, else after a while."""
        end = self._monotonic() + wait_s
        with self._changed:
            self._wanted[job_id] = word
            if self._last.get(job_id, ("", 0.0))[0] != word:
                self._last[job_id] = (word, self._monotonic())
            since = self._count
            while (told := self._news.get(job_id)) is None or told[0] <= since:
                if job_id not in self._covered and self._looks < self._room(job_id):
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
        wait_s = max(0.0, end - self._monotonic())
        shared_s = min(_LONGEST_SHARED_S, max(_SHARED_S, _SHARE * min(map(self._calm_s, batch))))
        self._covered |= batch.keys()
        self._looks += 1
        self._changed.release()
        try:
            found = self._look(batch, wait_s if alone else min(wait_s, shared_s))[1]
        except BaseException as error:
            self._changed.acquire()
            self._post(batch, error if isinstance(error, Exception) else Unavailable())
            if not isinstance(error, Exception):
                raise
        else:
            self._changed.acquire()
            self._post(batch, found)

    def _room(self, job_id: str) -> int:
        return _CALM_LOOKS if self._calm_s(job_id) > _CALM_S else LOOKS

    def _calm_s(self, job_id: str) -> float:
        """Return for how long there has been no news of the job."""
        word, since = self._last.get(job_id, ("", 0.0))
        return self._monotonic() - since if word else 0.0

    def _post(self, batch: Mapping[str, str], found: dict[str, Seen] | Exception) -> None:
        self._looks -= 1
        self._count += 1
        self._covered -= batch.keys()
        for job_id in batch:
            self._wanted.pop(job_id, None)
            told = found if isinstance(found, Exception) else found[job_id]
            self._news[job_id] = (self._count, told)
        self._changed.notify_all()
