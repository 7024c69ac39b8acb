"""What came of jobs at a bare host, on this side: the last word on each, and its files.

Rule 1: an outcome is kept as soon as all that was asked for is here, and stays as it is.
Rule 2: of several who would bring one job's files, one does; the others use what it brought.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import msgspec

from sekisho.adapters.bare_files import (
    SHORT_LOG_BYTES,
    Back,
    Quarantine,
    bring,
    choose,
    keep_log,
    missing,
)
from sekisho.adapters.bare_record import Record, outcome_of
from sekisho.adapters.durable import write_file
from sekisho.adapters.hosts.bare import BareHost, Exit, Seen
from sekisho.adapters.hosts.rsync import Rsync
from sekisho.adapters.job_notes import JobNotes
from sekisho.adapters.patience import Repeats
from sekisho.domain.files import Pattern
from sekisho.transfer.progress import Progress
from sekisho.wire.envelope import Outcome, open_outcome, open_request, seal
from sekisho.wire.v1 import SubmitJob

T = TypeVar("T")


class BareResults:
    """The results of one submitter's jobs at one bare host. Safe to share between threads."""

    def __init__(
        self,
        host: BareHost,
        notes: JobNotes,
        repeats: Repeats,
        record_of: Callable[[str], Record],
        on_bring: Progress,
    ) -> None:
        self._host = host
        self._rsync = Rsync(host.ssh)
        self._notes = notes
        self._repeats = repeats
        self._record_of = record_of
        self._on_bring = on_bring
        self._backs: dict[str, Back] = {}
        self._guard = threading.Lock()

    def outcome(self, job_id: str) -> Outcome | None:
        """Return the last word on a job, if it is known here."""
        try:
            return open_outcome((self._notes.place(job_id) / "outcome").read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def close(self, record: Record, outcome: Outcome) -> Outcome:
        """Keep ``outcome`` as the last word on a job."""
        place = self._notes.make(record.job.id)
        write_file(place / "record", msgspec.json.encode(record))
        write_file(place / "outcome", seal(outcome))
        return outcome

    def collect(self, record: Record, seen: Seen, end: Exit) -> Outcome:
        """Bring what the program left, and return the outcome that is kept from now on."""
        job_id = record.job.id
        self._notes.make(job_id)
        quarantine = self.quarantine(job_id)
        with quarantine.held():
            done = self.outcome(job_id)
            if done is not None:
                return done
            back = self._keep(job_id, self._brought(record.job, quarantine))
            return self.close(record, outcome_of(seen, end, back))

    def back(self, job_id: str) -> Back:
        """Return the files of an ended job, as they came or as they are here now."""
        with self._guard:
            if job_id in self._backs:
                return self._backs[job_id]
        return self.again(job_id, lambda back: back)

    def again(self, job_id: str, use: Callable[[Back], T]) -> T:
        """Use the files of an ended job, brought again if they are not here, before others drop."""
        quarantine, outcome = self.quarantine(job_id), self.outcome(job_id)
        with quarantine.held():
            back = quarantine.look()
            if outcome is None or outcome.outputs != back.tree.ref():
                job = self._record_of(job_id).job
                back = self._repeats.until_through(lambda: self._brought(job, quarantine))
            return use(self._keep(job_id, back))

    def drop(self, job_id: str) -> None:
        """Remove the files; the outcome stays."""
        with self._guard:
            self._backs.pop(job_id, None)
        self.quarantine(job_id).drop()

    def quarantine(self, job_id: str) -> Quarantine:
        return Quarantine(self._notes.place(job_id) / "back", self._on_bring)

    def _keep(self, job_id: str, back: Back) -> Back:
        with self._guard:
            self._backs[job_id] = back
        return back

    def _brought(self, job: SubmitJob, quarantine: Quarantine) -> Back:
        wishes = [Pattern(text) for text in open_request(job.request).outputs]
        left = self._host.left(job.id)
        wanted = choose(left, wishes)
        known = bring(self._rsync, self._host.place(job.id), left, wanted, quarantine)
        if 0 < left.log_bytes <= SHORT_LOG_BYTES:
            keep_log(quarantine, self._host.log(job.id, left.log_bytes))
        return quarantine.look(missing(left, wishes), known).lacking(wanted)
