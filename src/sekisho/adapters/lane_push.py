"""The lane to one site in push mode: this side's notes and hooks around the way to its host.

Rule 1: the note of a job, with the host that `before` named, is on disk before its site knows it.
Rule 2: `after` is owed from the moment that `before` is begun. It runs when nothing more is to be
        brought from the host; when it fails it stays owed, is tried with every later call, and
        whoever calls is told.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from sekisho.adapters.hosts.hook import run_hook
from sekisho.adapters.job_notes import JobNote, JobNotes
from sekisho.adapters.patience import Patience
from sekisho.client.client import Line
from sekisho.domain.errors import NotFound, SekishoError, Unavailable
from sekisho.domain.job import Attention, JobState
from sekisho.transfer.port import ChunkPort, FilePort
from sekisho.wire.envelope import open_outcome
from sekisho.wire.v1 import JobPage, JobView, OpenDraft, SiteList, SiteView, SnapshotView, SubmitJob

_TRIES: Final = 3
_WAITING: Final = frozenset({JobState.DRAFT, JobState.QUEUED})


@dataclass(frozen=True, slots=True, kw_only=True)
class PushSite:
    """One site of the settings, and what this side does before and after each of its jobs."""

    name: str
    host: str = ""  #: the one to use unless ``before`` names another
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    hook_s: float = 600.0
    hooks_in: Path = Path("/")  #: where both are run
    #: Says whether inputs may go before their request: not where a hook would begin a host for a
    #: job that may never come to be, and not where a login, which would then be two, may fail.
    drafts: Callable[[], bool] = lambda: False


class PushLane:
    """Lane and Board of one site; ``lane_at`` gives the lane to one host."""

    def __init__(
        self,
        site: PushSite,
        notes: JobNotes,
        lane_at: Callable[[str], Line],
        patience: Patience | None = None,
    ) -> None:
        self._site = site
        self._notes = notes
        self._make = lane_at
        self._patience = patience or Patience()
        self._lanes: dict[str, Line] = {}
        self._guard = threading.Lock()

    def close(self) -> None:
        for lane in self._lanes.values():
            lane.close()

    def submit(self, job: SubmitJob) -> JobView:
        self._release_owed()
        note = self._notes.find(job.id)
        if note is None or not note.host:
            note = self._prepared(job)
        return self._seen(self._at(note.host).submit(job))

    def open(self, draft: OpenDraft) -> JobView | None:
        if not self._site.drafts():
            return None
        note = self._notes.find(draft.id) or self._prepared(draft)
        view = self._at(note.host).open(draft)
        return None if view is None else self._seen(view)

    def chunks(self, job_id: str) -> ChunkPort | FilePort:
        return self._of(job_id).chunks(job_id)

    def start(self, job_id: str) -> JobView:
        with self._expected(job_id):
            return self._seen(self._of(job_id).start(job_id))

    def view(
        self,
        job_id: str,
        *,
        version: int | None = None,
        wait_s: float = 0,
        end: bool = False,
        patience_s: float | None = None,
    ) -> JobView:
        lane = self._of(job_id)
        with self._expected(job_id):
            view = lane.view(job_id, version=version, wait_s=wait_s, end=end, patience_s=patience_s)
        return self._seen(view)

    def snapshot(self, job_id: str) -> SnapshotView:
        return self._of(job_id).snapshot(job_id)

    def cancel(self, job_id: str) -> JobView:
        with self._expected(job_id):
            return self._seen(self._of(job_id).cancel(job_id))

    def received(self, job_id: str) -> JobView:
        with self._expected(job_id):
            view = self._of(job_id).received(job_id)
        return self._seen(view, brought=True)

    def jobs(self, *, after: str | None = None) -> JobPage:
        """Return the jobs that were submitted from here."""
        notes = self._notes.all(self._site.name)
        return JobPage(jobs=[self._looked(n) for n in notes if after is None or n.job < after])

    def sites(self) -> SiteList:
        states = [
            JobState(n.last.state) for n in self._notes.all(self._site.name) if n.last is not None
        ]
        going = [state for state in states if not state.terminal]
        waiting = sum(state in _WAITING for state in going)
        view = SiteView(
            id=self._site.name, connected=True, waiting=waiting, active=len(going) - waiting
        )
        return SiteList(sites=[view])

    def clock(self) -> datetime | None:
        return None

    # ------------------------------------------------------------------------ the way

    def _at(self, host: str) -> Line:
        """Return the one lane to ``host``: a second one would never be closed."""
        with self._guard:
            if host not in self._lanes:
                self._lanes[host] = self._make(host)
            return self._lanes[host]

    def _of(self, job_id: str) -> Line:
        note = self._notes.find(job_id)
        host = self._site.host if note is None or not note.host else note.host
        if not host:
            raise NotFound("job.not_found", job=job_id)
        return self._at(host)

    def _prepared(self, job: SubmitJob | OpenDraft) -> JobNote:
        owed = bool(self._site.after)
        note = JobNote(job=job.id, site=self._site.name, at=datetime.now(UTC), owed=owed)
        if not self._site.before:
            note = replace(note, host=self._site.host)
            self._notes.keep(note)
            return note
        self._notes.keep(note)
        try:
            said = self._hook("before", self._site.before, note)
        except SekishoError:
            self._release(note)
            raise
        note = replace(note, host=said or self._site.host)
        self._notes.keep(note)
        return note

    # ------------------------------------------------------------------------ memory

    def _seen(self, view: JobView, *, brought: bool = False) -> JobView:
        """Note what is worth remembering of ``view``; release the host when all is here."""
        note = self._notes.find(view.id)
        if note is None:
            return view
        if note.last is None or (note.last.state, note.last.received) != (
            view.state,
            view.received,
        ):
            note = replace(note, last=view)
            self._notes.keep(note)
        if note.owed and JobState(view.state).terminal and (brought or not _holds_files(view)):
            self._release(note)
        return view

    def _looked(self, note: JobNote) -> JobView:
        """Return the job as it is now, or as it was last seen when its site does not answer."""
        if note.last is not None and JobState(note.last.state).terminal:
            return note.last
        try:
            return self.view(note.job, patience_s=0)
        except Unavailable:
            return replace(self._last(note), attention=Attention.SITE_UNREACHABLE)
        except NotFound:
            last = self._last(note)  # it waited, or was noted and its site never came to hear of it
            waited = JobState(last.state) in _WAITING
            return replace(last, state=JobState.EXPIRED if waited else JobState.LOST)

    @contextmanager
    def _expected(self, job_id: str) -> Iterator[None]:
        """Tell a job that its site had, and has no more, from one that it never had."""
        try:
            yield
        except NotFound as error:
            note = self._notes.find(job_id)
            if error.code != "job.not_found" or note is None or note.last is None:
                raise
            if note.owed:  # nothing more will come from there
                self._release(note)
            raise NotFound("job.forgotten", job=job_id) from error

    def _last(self, note: JobNote) -> JobView:
        if note.last is not None:
            return note.last
        return JobView(
            id=note.job,
            site=note.site,
            submitter="unknown",
            state=JobState.DRAFT,
            version=0,
            created_at=note.at,
            changed_at=note.at,
            expires_at=note.at,
        )

    # ------------------------------------------------------------------------- hooks

    def _hook(self, name: str, argv: tuple[str, ...], note: JobNote) -> str:
        words = {"job": note.job, "site": self._site.name, "host": note.host or self._site.host}
        return run_hook(name, argv, self._site.hooks_in, words, self._site.hook_s)

    def _release(self, note: JobNote) -> None:
        """Run `after`; what fails stays owed, and is reported."""
        for attempt in range(1, _TRIES + 1):
            try:
                self._hook("after", self._site.after, note)
            except Unavailable as error:
                self._patience.on_pause(error, float(attempt))
                if attempt < _TRIES:
                    self._patience.wait(attempt)
            else:
                self._notes.keep(replace(note, owed=False))
                return

    def _release_owed(self) -> None:
        """Try again what could not be released when its job had ended."""
        for note in self._over():
            self._release(note)

    def _over(self) -> Iterator[JobNote]:
        for note in list(self._notes.all(self._site.name)) if self._site.after else ():
            ended = note.last is not None and JobState(note.last.state).terminal
            brought = note.last is not None and (note.last.received or not _holds_files(note.last))
            if note.owed and ended and brought:
                yield note


def _holds_files(view: JobView) -> bool:
    return view.result is not None and open_outcome(view.result).outputs is not None
