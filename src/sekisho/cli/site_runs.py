"""The runs of a site by the ways that its jobs come: from the broker, and through its gate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sekisho.adapters.journal_directory import DirectoryJournal
from sekisho.config.site import SiteFiles
from sekisho.domain.run import Run


@dataclass(frozen=True, slots=True)
class SiteRun:
    """One run, and below which directory its work directory is."""

    run: Run
    work_base: Path


def site_runs(files: SiteFiles) -> Iterator[SiteRun]:
    """Return what the agent remembers, then what the carriers of pushed jobs do."""
    for state, work_base in (
        (files.state, files.work_base),
        (carrier_state(files), files.work_base / "push"),
    ):
        for run in DirectoryJournal(state).runs():
            yield SiteRun(run, work_base)


def carrier_state(files: SiteFiles) -> Path:
    """Return where carriers remember (`compose.gate`)."""
    return files.state / "push" / "carrier"
