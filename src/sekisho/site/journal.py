"""What the runner needs to remember across its own death."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sekisho.domain.run import Run
from sekisho.domain.sitelog import Link, Record


class Journal(Protocol):
    """Durable memory of a site. Synchronous; durable when a method returns.

    A failed sync is fatal (`SyncFailed` ends the process): what is on the disk is then unknown.
    No room raises StorageFull, and nothing has changed.
    """

    def runs(self) -> list[Run]:
        """Return every run that is remembered; raise Corrupt when one cannot be read."""
        ...

    def save(self, run: Run, *, lasting: bool = True) -> None:
        """Remember ``run``, replacing what was remembered of its job.

        When not ``lasting``, a power loss may bring back what was remembered before: for what
        could be found again by looking.
        """
        ...

    def forget(self, job: str) -> None:
        """Drop a run whose work directory is gone; that it was here stays known, for ever."""
        ...

    def knew(self, job: str) -> bool:
        """Say whether ``job`` was forgotten: it must never be started again."""
        ...

    def append(self, records: Sequence[Record]) -> Link:
        """Add ``records`` to the site's log with one sync; return the last link."""
        ...
