"""Journal in memory: what a site would remember, for as long as this object lives."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from sekisho.domain.ids import check_job_id
from sekisho.domain.run import Run
from sekisho.domain.sitelog import ORIGIN, Link, Record, link


class MemoryJournal:
    """Implements `site.journal.Journal`; `links` and `records` are the log, oldest first."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._runs: dict[str, Run] = {}
        self._forgotten: set[str] = set()
        self.links: list[Link] = []
        self.records: list[Record] = []

    def runs(self) -> list[Run]:
        with self._guard:
            return [self._runs[job] for job in sorted(self._runs)]

    def save(self, run: Run, *, lasting: bool = True) -> None:  # noqa: ARG002 (nothing here lasts)
        with self._guard:
            self._runs[check_job_id(run.job)] = run

    def forget(self, job: str) -> None:
        with self._guard:
            self._forgotten.add(check_job_id(job))
            self._runs.pop(job, None)

    def knew(self, job: str) -> bool:
        with self._guard:
            return job in self._forgotten

    def append(self, records: Sequence[Record]) -> Link:
        with self._guard:
            for record in records:
                previous = self.links[-1].digest if self.links else ORIGIN
                self.links.append(link(record, seq=len(self.links) + 1, previous=previous))
                self.records.append(record)
            return self.links[-1]
