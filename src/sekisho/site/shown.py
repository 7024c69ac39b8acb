"""What is shown of a running command: the decision on its files, and its progress.

The same policy decides as at the end: what was asked for *and* is permitted to be published.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sekisho.domain.egress import PROGRESS_BYTES, Found, PublishRule, decide, percentage
from sekisho.domain.files import Pattern, RelPath
from sekisho.site.workplace import Place, Workplace
from sekisho.wire.envelope import Snapshot, SnapshotFile
from sekisho.wire.frames import digest_of


@dataclass(frozen=True, slots=True)
class Shown:
    """What may be shown of a command at one moment."""

    progress: int | None = None
    files: tuple[tuple[RelPath, bytes], ...] = ()

    def facts(self) -> dict[str, Any]:
        """Return it as the site's log tells it."""
        files = [[str(path), len(data), digest_of(data)] for path, data in self.files]
        return {"progress": self.progress, "files": files}

    def snapshot(self, at: datetime, receipt: str) -> Snapshot:
        """Return it as the submitter gets it."""
        files = [SnapshotFile(str(path), data) for path, data in self.files]
        return Snapshot(at=at, progress=self.progress, files=files, receipt=receipt)


NOTHING = Shown()


def look(workplace: Workplace, place: Place, rule: PublishRule, requested: list[Pattern]) -> Shown:
    """Return what ``rule`` lets out of the work directory now."""
    found = workplace.collect(place).found
    released = set(decide(rule.files, requested, found).release)
    gauge = [f for f in found if f.path == rule.progress and f.size <= PROGRESS_BYTES]
    files = [f for f in found if f.path in released]
    seen = dict(workplace.glimpse(place, [*gauge, *(f for f in files if f not in gauge)]))
    return Shown(
        progress=_progress(gauge, seen),
        files=tuple((f.path, seen[f.path]) for f in files if f.path in seen),
    )


def _progress(gauge: list[Found], seen: dict[RelPath, bytes]) -> int | None:
    texts = [seen[f.path] for f in gauge if f.path in seen]
    return percentage(texts[0]) if texts else None
