"""What this side remembers of jobs in push mode: a directory for each, below the user's state.

A note is written before the job is known to its site, so that every later call finds the way back
to it. It is a convenience for all but one thing: the host that a hook of this side has named.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct

from sekisho.adapters.durable import make_directory, write_file
from sekisho.domain.errors import Corrupt
from sekisho.domain.ids import check_job_id
from sekisho.wire.v1 import JobView

_NOTE: Final = "note.json"
_BASE: Final = "base"
_PUSHING: Final = "pushing"
_PUSHED: Final = "pushed"


class JobNote(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One job, as it was ``last`` seen. ``owed``: the ``after`` hook has still to be run."""

    job: str
    site: str
    host: str = ""
    at: datetime
    owed: bool = False
    last: JobView | None = None


def state_directory(environ: Mapping[str, str]) -> Path:
    """Return where a client keeps its notes: below XDG_STATE_HOME or ~/.local/state."""
    home = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "sekisho" / "jobs"


class Push(NamedTuple):
    """When a job's inputs were read, in seconds of the epoch. ``ended``: None if unknown."""

    begun: float
    ended: float | None


class JobNotes:
    """The notes of one user on this host. Safe to share between threads and processes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def place(self, job_id: str) -> Path:
        """Return the job's own directory, which may not exist yet."""
        return self.root / check_job_id(job_id)

    def make(self, job_id: str) -> Path:
        """Return the job's own directory, made private and durable."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = self.place(job_id)
        make_directory(place)
        return place

    def keep(self, note: JobNote) -> None:
        """Write the note, replacing an earlier one."""
        write_file(self.make(note.job) / _NOTE, msgspec.json.encode(note))

    def find(self, job_id: str) -> JobNote | None:
        """Return the note of a job that was submitted from here."""
        try:
            return msgspec.json.decode((self.place(job_id) / _NOTE).read_bytes(), type=JobNote)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except msgspec.MsgspecError as error:
            raise Corrupt from error

    def all(self, site: str) -> Iterator[JobNote]:
        """Return the notes of one site's jobs, newest first."""
        with suppress(FileNotFoundError):
            for place in sorted(self.root.iterdir(), reverse=True):
                note = self.find(place.name) if place.name.startswith("job_") else None
                if note is not None and note.site == site:
                    yield note

    def keep_base(self, job_id: str, number: str) -> None:
        """Keep the number of the directory that a bare job was made in: unsynced, it only tells."""
        (self.make(job_id) / _BASE).write_text(number, "ascii")

    def push_begins(self, job_id: str) -> None:
        """Note that a bare job's inputs are read from now on; the first time counts."""
        with suppress(FileExistsError):
            (self.make(job_id) / _PUSHING).touch(exist_ok=False)

    def push_ended(self, job_id: str) -> None:
        """Note that they are all there."""
        (self.make(job_id) / _PUSHED).touch()

    def push(self, job_id: str) -> Push | None:
        """Return when a job's inputs were read; None: never, from here."""
        begun, ended = (_touched(self.place(job_id) / name) for name in (_PUSHING, _PUSHED))
        return None if begun is None else Push(begun, ended)

    def base(self, job_id: str) -> str:
        """Return what `keep_base` has kept, or nothing."""
        try:
            number = (self.place(job_id) / _BASE).read_text("ascii")
        except (OSError, UnicodeDecodeError):
            return ""
        return number if number.isdigit() else ""

    def drop(self, job_id: str) -> None:
        """Forget the job and everything that was kept of it."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self.place(job_id))


def _touched(file: Path) -> float | None:
    try:
        return file.stat().st_mtime
    except OSError:
        return None
