"""The lane to one host where nothing is installed but sshd, a shell and rsync.

Rule 1: everything that is needed to find a job again is in its directory there; what is here is a
        copy of the way there, and what came back.
Rule 2: look at what is really there, and take one step that can be taken twice: a job whose inputs
        are complete and that nobody has started is started by whoever looks.
Rule 3: a job has ended, for its submitter, when all that it left and that was asked for is here.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from sekisho.adapters.bare_files import (
    SHORT_LOG_BYTES,
    Back,
    BareFiles,
    Quarantine,
    bring,
    choose,
    keep_log,
    missing,
)
from sekisho.adapters.bare_record import Record, outcome_of, submitter, written
from sekisho.adapters.bare_watch import Watch
from sekisho.adapters.durable import write_file
from sekisho.adapters.hosts.bare import COMING, BareHost, Exit, Seen
from sekisho.adapters.hosts.rsync import Rsync, Target
from sekisho.adapters.job_notes import JobNotes
from sekisho.adapters.patience import Patience, Pauses
from sekisho.domain.errors import Conflict, IntegrityError, NotFound, Refused, SekishoError
from sekisho.domain.files import Pattern
from sekisho.domain.job import JobState
from sekisho.domain.manifest import Command, bind
from sekisho.transfer.holes import sparse
from sekisho.transfer.progress import Progress, unseen
from sekisho.wire.envelope import Outcome, open_outcome, open_request, seal
from sekisho.wire.v1 import JobPage, JobView, SiteList, SnapshotView, SubmitJob

T = TypeVar("T")
_STATES: Final[Mapping[str, JobState]] = {
    "making": JobState.DRAFT,
    "ready": JobState.QUEUED,
    "starting": JobState.RUNNING,
    "running": JobState.RUNNING,
    "cancelled": JobState.CANCELLED,
    "gone": JobState.LOST,
}
_ORDER: Final = {state: n for n, state in enumerate(JobState)}
_VERDICTS: Final = {
    "succeeded": JobState.SUCCEEDED,
    "failed": JobState.FAILED,
    "cancelled": JobState.CANCELLED,
    "lost": JobState.LOST,
}
_EARLIER: Final = 3  #: so many earlier jobs are looked at for equal inputs
_CLEAN_EVERY_S: Final = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class BareSite:
    """What this side's settings say of a bare site."""

    name: str
    programs: Mapping[str, Command]
    retention_days: int = 30


@dataclass(slots=True)
class _Known:
    """A job as this process has met it."""

    record: Record
    word: str = ""


class BareLane:
    """Lane and Board of one submitter at one bare host."""

    def __init__(
        self,
        site: BareSite,
        host: BareHost,
        notes: JobNotes,
        patience: Patience | None = None,
        on_bring: Progress = unseen,
    ) -> None:
        self._site = site
        self._host = host
        self._rsync = Rsync(host.ssh)
        self._notes = notes
        self._patience = patience or Patience()
        self._on_bring = on_bring
        self._watch = Watch(host.look)
        self._jobs: dict[str, _Known] = {}
        self._backs: dict[str, Back] = {}
        self._guard = threading.Lock()
        self._answered = False

    def close(self) -> None:
        """Keep the connection for the next; jobs go on."""

    # ----------------------------------------------------------------------- the port

    def submit(self, job: SubmitJob) -> JobView:
        record = self._ordered(job)
        text = msgspec.json.encode(record)
        begin = None if job.has_inputs else (record.token, record.argv)
        word, there = self._repeat(lambda: self._host.make(job.id, text, begin))
        known = self._knows(job.id, there)
        if known.record.job != job:
            raise Conflict("job.different_request", job=job.id)
        if word == "making" and not job.has_inputs:  # made by a call that was cut off
            return self.start(job.id)
        return self._brief(known, "running" if word == "ready" and begin else word)

    def chunks(self, job_id: str) -> BareFiles:
        place = self._notes.make(job_id)
        target = Target(
            place=f"{self._host.place(job_id)}/work",
            bases=self._earlier(job_id),
            passing=COMING,
        )

        def push(links: Path, report: Callable[[int], None]) -> None:
            to, tries = replace(target, sparse=sparse(links)), count()

            def once() -> None:
                if next(tries):
                    self._host.settle(job_id)
                self._rsync.push(links, to, report)

            self._repeat(once)

        back, again = partial(self._back, job_id), partial(self._again, job_id)
        return BareFiles(push, place / "in", back, again, self._quarantine(job_id).held)

    def start(self, job_id: str) -> JobView:
        known = self._known(job_id)
        record = known.record
        word = self._repeat(lambda: self._host.start(job_id, record.token, record.argv))
        return self._brief(known, "running" if word == "ready" else word)

    def view(
        self,
        job_id: str,
        *,
        version: int | None = None,
        wait_s: float = 0,
        end: bool = False,  # noqa: ARG002 (a bare site's job has few states: all are told)
        patience_s: float | None = None,
    ) -> JobView:
        outcome = self._outcome(job_id)
        pauses = self._pauses(patience_s)
        while outcome is None:
            try:
                return self._looked(job_id, version, wait_s)
            except _Ended as ended:
                outcome = ended.outcome
            except SekishoError as error:
                pauses.after(error)
        known = self._known(job_id)
        view = self._view(known, _VERDICTS[outcome.verdict], cancelling=False)
        ended_at = outcome.ended_at or known.record.created_at
        return msgspec.structs.replace(
            view,
            changed_at=ended_at,
            result=seal(outcome),
            received=(self._notes.place(job_id) / "received").exists(),
        )

    def snapshot(self, job_id: str) -> SnapshotView:
        """Nothing is published at a bare site: nobody there could decide what may be."""
        raise NotFound("snapshot.not_found", job=job_id)

    def cancel(self, job_id: str) -> JobView:
        if self._outcome(job_id) is None:
            self._known(job_id)
            self._repeat(lambda: self._host.cancel(job_id))
        return self.view(job_id)

    def received(self, job_id: str) -> JobView:
        view = self.view(job_id)
        if not JobState(view.state).terminal:
            raise Conflict("job.invalid_transition", job=job_id)
        write_file(self._notes.make(job_id) / "received", b"")
        with self._guard:
            self._backs.pop(job_id, None)
        self._quarantine(job_id).drop()
        self._clean()
        return msgspec.structs.replace(view, received=True)

    def jobs(self, *, after: str | None = None) -> JobPage:
        notes = self._notes.all(self._site.name)
        return JobPage(jobs=[self.view(n.job) for n in notes if after is None or n.job < after])

    def sites(self) -> SiteList:
        return SiteList(sites=[])

    def clock(self) -> datetime | None:
        return None

    # ------------------------------------------------------------------------ the job

    def _ordered(self, job: SubmitJob) -> Record:
        request = open_request(job.request)
        command = self._site.programs.get(request.command)
        if command is None:
            raise Refused("command.unknown", command=request.command)
        for wish in request.outputs:
            Pattern(wish)
        given = {name: written(value) for name, value in request.parameters.items()}
        return Record(
            job=job,
            submitter=submitter(),
            argv=list(bind(command, given)),
            token=secrets.token_hex(16),
            created_at=datetime.now(UTC),
        )

    def _brief(self, known: _Known, word: str) -> JobView:
        """Return what a state's word says, without bringing anything."""
        if word in ("cancelled", "gone", "absent"):
            return self.view(known.record.job.id)
        known.word = _waited(word)
        return self._view(known, _STATES.get(word, JobState.RETURNING), cancelling=False)

    def _knows(self, job_id: str, text: bytes) -> _Known:
        try:
            record = msgspec.json.decode(text, type=Record)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise IntegrityError("bare.strange") from error
        if record.job.id != job_id:
            raise IntegrityError("bare.strange")
        with self._guard:
            return self._jobs.setdefault(job_id, _Known(record))

    def _known(self, job_id: str) -> _Known:
        if job_id in self._jobs:
            return self._jobs[job_id]
        kept = self._notes.place(job_id) / "record"
        with suppress(FileNotFoundError, NotADirectoryError):
            return self._knows(job_id, kept.read_bytes())
        _, text = self._repeat(lambda: self._host.record(job_id))
        return self._knows(job_id, text)

    def _looked(self, job_id: str, version: int | None, wait_s: float) -> JobView:
        """Look once, and take the step that is due; raise _Ended with the last word on the job."""
        known = self._known(job_id)
        unchanged = version is not None and version == _version(known.word)
        seen = self._watch.news(job_id, known.word if unchanged else "", wait_s)
        self._answered = True
        known.word = _waited(seen.word)
        match seen.word:
            case "absent":
                raise NotFound("job.not_found", job=job_id)
            case "ready":
                self._host.start(job_id, known.record.token, known.record.argv)
            case "exit" if seen.exit is not None and seen.exit.token == known.record.token:
                raise _Ended(self._collected(known, seen, seen.exit))
            case "cancelled":
                raise _Ended(self._closed(known, Outcome(verdict="cancelled")))
            case "gone" | "exit":  # a record with another token is somebody else's: none
                raise _Ended(self._closed(known, Outcome(verdict="lost")))
            case _:
                pass
        return self._view(known, _STATES[seen.word], cancelling=seen.cancel_asked)

    def _view(self, known: _Known, state: JobState, *, cancelling: bool) -> JobView:
        record = known.record
        return JobView(
            id=record.job.id,
            site=self._site.name,
            submitter=record.submitter,
            state=state,
            version=_ORDER[state],
            created_at=record.created_at,
            changed_at=record.created_at,
            expires_at=record.created_at + timedelta(days=self._site.retention_days),
            cancel_requested=cancelling,
        )

    # ---------------------------------------------------------------------- its result

    def _collected(self, known: _Known, seen: Seen, end: Exit) -> Outcome:
        """Bring what the program left, and return the outcome that is kept from now on."""
        job_id = known.record.job.id
        self._notes.make(job_id)
        quarantine = self._quarantine(job_id)
        with quarantine.held():
            done = self._outcome(job_id)
            if done is not None:
                return done
            back = self._brought(known.record.job, quarantine)
            with self._guard:
                self._backs[job_id] = back
            return self._closed(known, outcome_of(seen, end, back))

    def _brought(self, job: SubmitJob, quarantine: Quarantine) -> Back:
        job_id = job.id
        wishes = [Pattern(text) for text in open_request(job.request).outputs]
        left = self._host.left(job_id)
        wanted = choose(left, wishes)
        place = self._host.place(job_id)
        known = bring(self._rsync, place, left, wanted, quarantine)
        if 0 < left.log_bytes <= SHORT_LOG_BYTES:
            keep_log(quarantine, self._host.log(job_id, left.log_bytes))
        back = quarantine.look(missing(left, wishes), known)
        return back.lacking(wanted)

    def _back(self, job_id: str) -> Back:
        """Return the files of an ended job, as they came or as they are here now."""
        with self._guard:
            if job_id in self._backs:
                return self._backs[job_id]
        return self._again(job_id, lambda back: back)

    def _again(self, job_id: str, use: Callable[[Back], T]) -> T:
        """Use the files of an ended job, brought again if they are not here, before others drop."""
        quarantine, outcome = self._quarantine(job_id), self._outcome(job_id)
        with quarantine.held():
            back = quarantine.look()
            if outcome is None or outcome.outputs != back.tree.ref():
                job = self._known(job_id).record.job
                back = self._repeat(lambda: self._brought(job, quarantine))
            with self._guard:
                self._backs[job_id] = back
            return use(back)

    def _closed(self, known: _Known, outcome: Outcome) -> Outcome:
        place = self._notes.make(known.record.job.id)
        write_file(place / "record", msgspec.json.encode(known.record))
        write_file(place / "outcome", seal(outcome))
        return outcome

    def _outcome(self, job_id: str) -> Outcome | None:
        try:
            return open_outcome((self._notes.place(job_id) / "outcome").read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _quarantine(self, job_id: str) -> Quarantine:
        return Quarantine(self._notes.place(job_id) / "back", self._on_bring)

    def _earlier(self, job_id: str) -> list[str]:
        """Return work directories of own jobs there, as seen from the new one, newest first."""
        own = [note.job for note in self._notes.all(self._site.name) if note.job != job_id]
        return [f"../../{job}/work" for job in own[:_EARLIER]]

    def _clean(self) -> None:
        """Once a day, remove old jobs there. A fault of it is no fault of the job's."""
        mark = self._notes.root / f".cleaned-{self._site.name}"
        if mark.exists() and time.time() - mark.stat().st_mtime < _CLEAN_EVERY_S:
            return
        with suppress(SekishoError):
            self._host.clean(self._site.retention_days)
            mark.touch()

    # --------------------------------------------------------------------- the line

    def _pauses(self, limit_s: float | None) -> Pauses:
        first_s = None if self._answered else self._patience.first_s
        limits = [s for s in (limit_s, self._patience.limit_s, first_s) if s is not None]
        return Pauses(self._patience, min(limits, default=None))

    def _repeat(self, ask: Callable[[], T]) -> T:
        """Ask until it gets through."""
        pauses = self._pauses(None)
        while True:
            try:
                found = ask()
            except SekishoError as error:
                pauses.after(error)
            else:
                self._answered = True
                return found


class _Ended(Exception):
    """Nothing more will happen to the job. Never leaves the lane."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        super().__init__(outcome.verdict)


def _waited(word: str) -> str:
    """Return ``word`` as one waits for another: a start that is under way runs, an end is news."""
    return {"starting": "running", "exit": ""}.get(word, word)


def _version(word: str) -> int:
    return _ORDER[_STATES.get(word, JobState.RETURNING)]
