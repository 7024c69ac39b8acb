"""A gate in one process: real records on disk, runs written by hand, a carrier that only notes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from sekisho.adapters.journal_directory import DirectoryJournal
from sekisho.adapters.push_directory import DirectoryPushStore
from sekisho.adapters.shelf_memory import MemoryShelf
from sekisho.adapters.workplace_local import LocalWorkplace
from sekisho.client.client import new_job_id
from sekisho.domain.errors import Unavailable
from sekisho.domain.resources import LOCAL
from sekisho.domain.run import Run, Stage
from sekisho.site.gate import Gate
from sekisho.site.push import ChunkShelf
from sekisho.site.workplace import Workplace
from sekisho.wire.v1 import SubmitJob

SITE: Final = "kobe"
START: Final = datetime(2026, 4, 1, 9, tzinfo=UTC)


class Hours:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.passed = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        return self.passed


@dataclass
class NotedCarrier:
    """Notes what it is asked for."""

    asked: list[str] = field(default_factory=list)

    def ensure(self, *, news: bool) -> None:
        self.asked.append("news" if news else "ensure")

    def revive(self) -> None:
        self.asked.append("revive")


class World:
    """One site, as its gates see it. What happens during a wait is done by ``meanwhile``."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.clock = Hours()
        self.store = DirectoryPushStore(place / "push")
        self.journal = DirectoryJournal(place / "push" / "carrier", log=place / "log")
        self.journal.lock()
        self.chunks: ChunkShelf = MemoryShelf(now=self.clock.now)
        self.workplace = LocalWorkplace(place / "work")
        self.far = LocalWorkplace(place / "far")
        self.away = False
        self.carrier = NotedCarrier()
        self.pauses: list[float] = []
        self.meanwhile: Callable[[], bool] = lambda: False

    def gate(self, submitter: str = "alice") -> Gate:
        return Gate(
            site=SITE,
            submitter=submitter,
            version="1",
            store=self.store,
            runs=self.journal,
            chunks=self.chunks,
            carrier=self.carrier,
            workplaces=self._workplace,
            clock=self.clock,
            pause=self._pause,
        )

    def _workplace(self, host: str) -> Workplace:
        if host != LOCAL and self.away:
            raise Unavailable("host.unreachable", why="away")
        return self.workplace if host == LOCAL else self.far

    def _pause(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        self.clock.passed += seconds
        return self.meanwhile()

    def run(self, job: str, stage: Stage, **changes: object) -> Run:
        """Record how far the carrier is with ``job``."""
        kept = self.journal.run(job)
        if kept is None:
            now = self.clock.now()
            kept = Run(job=job, epoch=1, submitter="alice", request=b"{}", taken_at=now)
        kept = replace(kept, stage=stage, **changes)  # type: ignore[arg-type]
        self.journal.save(kept)
        return kept

    def settled(self, job: str, stage: Stage = Stage.RETURNED, **changes: object) -> Run:
        usual = {"ok": True, "finished_at": self.clock.now()} | changes
        return self.run(job, stage, told=(stage,), **usual)

    def days(self, number: float) -> None:
        self.clock.passed += number * 86_400


def a_submission(**changes: object) -> SubmitJob:
    usual: dict[str, object] = {"id": new_job_id(), "site": SITE, "request": b"{}"}
    return SubmitJob(**{**usual, **changes})  # type: ignore[arg-type]
