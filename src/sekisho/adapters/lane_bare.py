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
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count, islice
from math import inf
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from sekisho.adapters.bare_files import BareFiles
from sekisho.adapters.bare_record import Record, submitter, written
from sekisho.adapters.bare_results import BareResults
from sekisho.adapters.bare_watch import Watch
from sekisho.adapters.durable import write_file
from sekisho.adapters.hosts.bare import COMING, BareHost
from sekisho.adapters.hosts.rsync import Rsync, Target
from sekisho.adapters.job_notes import JobNotes, Push
from sekisho.adapters.patience import Patience, Repeats
from sekisho.domain.errors import Conflict, IntegrityError, NotFound, Refused, SekishoError
from sekisho.domain.files import Pattern
from sekisho.domain.job import JobState
from sekisho.domain.manifest import Command, bind
from sekisho.transfer.holes import sparse
from sekisho.transfer.progress import Progress, unseen
from sekisho.wire.envelope import Outcome, open_request, seal
from sekisho.wire.v1 import JobPage, JobView, OpenDraft, SiteList, SnapshotView, SubmitJob

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
#: A file's time may be that of another clock, and has the second that it began with.
_SLACK_S: Final = 2
#: A job that was to end has so long before it is asked again: longer than asking itself takes.
_PRESS_S: Final = 30
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
    pressed: float | None = None  #: when it was seen to run although it was to end


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
        self._repeats = Repeats(patience or Patience(), host.explained)
        self._results = BareResults(host, notes, self._repeats, self._record, on_bring)
        self._watch = Watch(host.look)
        self._jobs: dict[str, _Known] = {}
        self._guard = threading.Lock()

    def close(self) -> None:
        """Keep the connection for the next; jobs go on."""

    # ----------------------------------------------------------------------- the port

    def submit(self, job: SubmitJob) -> JobView:
        record = self._ordered(job)
        text = msgspec.json.encode(record)
        begin = None if job.has_inputs else (record.token, record.argv)
        self._host.bases.setdefault(job.id, self._notes.base(job.id))
        word, there = self._repeats.until_through(lambda: self._host.make(job.id, text, begin))
        self._notes.keep_base(job.id, self._host.bases[job.id])
        known = self._knows(job.id, there)
        if known.record.job != job:
            raise Conflict("job.different_request", job=job.id)
        if word == "making" and not job.has_inputs:  # made by a call that was cut off
            return self.start(job.id)
        return self._brief(known, "running" if word == "ready" and begin else word)

    def open(self, draft: OpenDraft) -> None:
        """Decline: a site looks at the request before it takes inputs."""

    def chunks(self, job_id: str) -> BareFiles:
        place = self._notes.make(job_id)
        earlier = self._earlier(job_id)
        target = Target(
            place=f"{self._host.place(job_id)}/work",
            bases=[f"../../{job}/work" for job, _ in earlier],
            passing=COMING,
        )

        def push(links: Path, report: Callable[[int], None]) -> None:
            verify = _doubtful(links, [push for _, push in earlier])
            to, tries = replace(target, verify=verify, sparse=sparse(links)), count()

            def once() -> None:
                if next(tries):
                    self._host.settle(job_id)
                self._rsync.push(links, to, report)

            self._notes.push_begins(job_id)
            self._repeats.until_through(once)
            self._notes.push_ended(job_id)

        results = self._results
        back, again = partial(results.back, job_id), partial(results.again, job_id)
        return BareFiles(push, place / "in", back, again, results.quarantine(job_id).held)

    def start(self, job_id: str) -> JobView:
        known = self._known(job_id)
        record = known.record
        word = self._repeats.until_through(
            lambda: self._host.start(job_id, record.token, record.argv)
        )
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
        outcome = self._results.outcome(job_id)
        if outcome is None:
            try:
                return self._repeats.until_through(
                    lambda: self._looked(job_id, version, wait_s), patience_s
                )
            except _Ended as ended:
                outcome = ended.outcome
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
        if self._results.outcome(job_id) is None:
            self._known(job_id)
            self._repeats.until_through(lambda: self._host.cancel(job_id))
        return self.view(job_id)

    def received(self, job_id: str) -> JobView:
        view = self.view(job_id)
        if not JobState(view.state).terminal:
            raise Conflict("job.invalid_transition", job=job_id, state=view.state)
        write_file(self._notes.make(job_id) / "received", b"")
        self._results.drop(job_id)
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
            raise Refused("bare.no_program", command=request.command)
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
        self._host.bases.setdefault(job_id, self._notes.base(job_id))
        kept = self._notes.place(job_id) / "record"
        with suppress(FileNotFoundError, NotADirectoryError):
            return self._knows(job_id, kept.read_bytes())
        _, text = self._repeats.until_through(lambda: self._host.record(job_id))
        return self._knows(job_id, text)

    def _record(self, job_id: str) -> Record:
        return self._known(job_id).record

    def _looked(self, job_id: str, version: int | None, wait_s: float) -> JobView:
        """Look once, and take the step that is due; raise _Ended with the last word on the job."""
        known = self._known(job_id)
        unchanged = version is not None and version == _version(known.word)
        seen = self._watch.news(job_id, known.word if unchanged else "", wait_s)
        self._repeats.heard()
        if seen.word == "away":
            raise self._host.away()
        known.word = _waited(seen.word)
        match seen.word:
            case "absent":
                raise NotFound("job.not_found", job=job_id)
            case "ready":
                self._host.start(job_id, known.record.token, known.record.argv)
            case "exit" if seen.exit is not None and seen.exit.token == known.record.token:
                raise _Ended(self._results.collect(known.record, seen, seen.exit))
            case "cancelled":
                raise _Ended(self._results.close(known.record, Outcome(verdict="cancelled")))
            case "gone" | "exit":  # a record with another token is somebody else's: none
                raise _Ended(self._results.close(known.record, Outcome(verdict="lost")))
            case _:
                self._press(known, to_end=seen.cancel_asked)
        return self._view(known, _STATES[seen.word], cancelling=seen.cancel_asked)

    def _press(self, known: _Known, *, to_end: bool) -> None:
        """Ask again for the end of a job that goes on: what was to end it may have been killed."""
        now = self._repeats.patience.monotonic()
        if not to_end:
            known.pressed = None
        elif known.pressed is None:
            known.pressed = now
        elif now - known.pressed > _PRESS_S:
            self._host.cancel(known.record.job.id)
            known.pressed = now

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

    def _earlier(self, job_id: str) -> list[tuple[str, Push]]:
        """Return own jobs there that got inputs from here, newest first."""
        own = (note.job for note in self._notes.all(self._site.name) if note.job != job_id)
        pushed = ((job, push) for job in own if (push := self._notes.push(job)) is not None)
        return list(islice(pushed, _EARLIER))

    def _clean(self) -> None:
        """Once a day, remove old jobs there. A fault of it is no fault of the job's."""
        mark = self._notes.root / f".cleaned-{self._site.name}"
        if mark.exists() and time.time() - mark.stat().st_mtime < _CLEAN_EVERY_S:
            return
        with suppress(SekishoError):
            self._host.clean(self._site.retention_days)
            mark.touch()


def _doubtful(links: Path, pushes: Sequence[Push]) -> bool:
    """Say whether a file changed while an earlier job's inputs were read.

    rsync compares whole seconds: a file that changed twice in one may be equal in size and time.
    """
    changed = [int(path.stat().st_mtime) for path in links.rglob("*") if path.is_file()]
    return any(
        begun - _SLACK_S <= second <= (inf if ended is None else ended + _SLACK_S)
        for second in changed
        for begun, ended in pushes
    )


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
