"""The old MInt protocol as a translation onto ordinary jobs; here the workflow's side of it.

A job that an old client registers is an ordinary draft, in the user's name; what has no place in a
job is in its note. Job and note are written one after the other, so that a step that was cut short
is simply made again. The broker opens the envelopes of such jobs, and of jobs that an old agent
serves, since those programs cannot; it opens no others.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from sekisho.broker.chunks import Chunks, Claim
from sekisho.broker.jobs import Jobs
from sekisho.broker.mint_files import JobChunks
from sekisho.broker.policy import CurrentPolicy, MintSite
from sekisho.broker.ports import JobFilter, MintNotes, Sites, Tenant
from sekisho.broker.submit import Submissions
from sekisho.domain.clock import Clock
from sekisho.domain.errors import NotFound, SekishoError, UsageError
from sekisho.domain.ids import ENTROPY_BYTES
from sekisho.domain.job import Job, JobState
from sekisho.domain.limits import MAX_ENVELOPE_BYTES
from sekisho.transfer.spooled import SpooledTree
from sekisho.wire.envelope import MintRequest, Outcome, open_outcome, seal
from sekisho.wire.mint import (
    ABNORMAL,
    CALC_END,
    COMPLETED,
    ERROR,
    GETTING_RETURN,
    GOT_RETURN,
    LOG_NAMES,
    NOT_START,
    RUNNING,
    SENDING_PARAMS,
    AddCalcInfo,
    CalcInfo,
    Named,
    Note,
    Reply,
    accept_id_of,
    input_name,
    job_id_of,
    kind_of,
    new_job_id,
    result_name,
)
from sekisho.wire.mint_body import Content, Lifted, Piece
from sekisho.wire.v1 import SubmitJob

#: After a result was fetched it may be fetched again for so long: the answer may have been cut.
_AGAIN: Final = timedelta(minutes=10)
_WAITING: Final = frozenset({JobState.DRAFT, JobState.QUEUED, JobState.OFFERED})
_GONE: Final = frozenset({JobState.CANCELLED, JobState.EXPIRED})


@dataclass(frozen=True, slots=True)
class Files:
    """An answer that carries files: by name the content, or None, with what its two types say.

    ``code`` is why one is not there, where its second type does not say so. With ``info`` they
    are the inputs of that calculation, else the results of one.
    """

    accept_id: str
    files: Mapping[str, tuple[Content | None, str, str]]
    info: Note | None = None
    site: str = ""
    code: str = ""
    params: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MintDesk:
    """What both sides of the old protocol work with."""

    jobs: Jobs
    submissions: Submissions
    chunks: Chunks
    notes: MintNotes
    sites: Sites
    policy: CurrentPolicy
    clock: Clock

    def note(self, job: Job) -> Note:
        """Return what is remembered of ``job``; an empty note when nothing is."""
        return _note(self.notes.note(job.id))

    def change(self, job: Job, decide: Callable[[Note], Note]) -> None:
        """Keep what ``decide`` makes of the note as it is then: both sides write in it."""
        self.notes.change(job.id, lambda kept: msgspec.json.encode(decide(_note(kept))))

    def note_down(self, job: Job, **facts: object) -> None:
        """Change these facts of the note, and no others."""
        self.change(job, lambda note: replace(note, **facts))

    def site(self, name: str, user: str) -> MintSite | None:
        """Return the site if the old paths are open for it and it serves ``user``."""
        site, known = self.policy.value.mint.site(name), self.sites.site(name)
        return site if site and known and user in known.submitters else None

    def port(self, job: Job, claim: Claim | None = None) -> JobChunks:
        """Return the chunks of ``job``, for its submitter unless ``claim`` says otherwise."""
        own = Claim(tenant=Tenant(submitter=job.submitter))
        return JobChunks(self.chunks, claim or own, job)

    def cancel(self, job: Job) -> Job:
        return self.submissions.cancel(job.submitter, job.id)


@dataclass(frozen=True, slots=True)
class MintOrders:
    """What an old workflow client asks, about jobs that it, or its like, registered."""

    desk: MintDesk

    def add(self, user: str, body: Lifted) -> Reply:
        """Register a calculation: a draft that holds its inputs."""
        try:
            info = body.decoded(AddCalcInfo).calc_info
        except UsageError:
            return Reply("not_json", 202, 400)
        if info is None:
            return Reply("no_calc_info", 202, 400)
        info.remote_site = self.desk.policy.value.mint.ours(info.remote_site)
        return self._fault(user, info) or self._add(user, info, body)

    def _add(self, user: str, info: CalcInfo, body: Lifted) -> Reply:
        try:
            files = {input_name(name): _content(body, file) for name, file in _files(info)}
            body.check_all_used()
            spooled = SpooledTree(body.spool, files)
            kinds = {str(input_name(name)): _kinds(file) for name, file in _files(info)}
            results = [result_name(name) for name in info.result_files]
        except UsageError as error:
            key = "bad_name" if error.code == "path.invalid" else "bad_files"
            return Reply(key, 202, 400, {"name": str(error.params.get("path", ""))[:80]})
        if len(files) != len(info.parameter_files):
            return Reply("same_name", 202, 400)
        if sum(len(name.encode()) for name in results) > MAX_ENVELOPE_BYTES // 2:
            return Reply("bad_files", 202, 400)
        job = self._register(user, info, spooled, results, kinds)
        return Reply("registered", beside={"accept_id": accept_id_of(job.id)}, site=job.site)

    def _fault(self, user: str, info: CalcInfo) -> Reply | None:
        if not info.remote_site:
            return Reply("no_site", 202, 400)
        site = self.desk.site(info.remote_site, user)
        if site is None:
            return Reply("unknown_site", 202, "400", {"site": info.remote_site[:80]})
        if not info.command:
            return Reply("no_command", 202, 400)
        if not site.allows(info.command):
            return Reply("unlisted_command", 202, 401, {"command": info.command[:200]})
        return None

    def _register(
        self,
        user: str,
        info: CalcInfo,
        files: SpooledTree,
        results: list[str],
        kinds: dict[str, tuple[str, str]],
    ) -> Job:
        desk = self.desk
        inputs = files.tree.ref() if files.tree.files else None
        now_ms = int(desk.clock.now().timestamp() * 1000)
        request = MintRequest(
            mint_command=info.command,
            mint_parameters=info.parameters,
            inputs=inputs,
            outputs=[name for name in results if name not in LOG_NAMES],
        )
        message = SubmitJob(
            id=new_job_id(at_ms=now_ms, entropy=secrets.token_bytes(ENTROPY_BYTES)),
            site=info.remote_site,
            request=seal(request),
            has_inputs=True,
            queue_s=desk.policy.value.mint.queue_time.total_seconds(),
        )
        job, _ = desk.submissions.submit(user, message)
        facts = Note(
            old_client=True,
            command=info.command,
            parameters=info.parameters,
            inputs=inputs,
            kinds=kinds,
            results=results,
        )
        try:
            desk.change(job, lambda _: facts)
            desk.port(job).store(files)
        except SekishoError:
            desk.cancel(job)
            raise
        return job

    def allow(self, user: str, message: Named) -> Reply:
        """Let a registered calculation wait for its site."""
        if (found := self._find(user, message.accept_id)) is None:
            return self._unknown(user, message.accept_id, 400)
        job, _ = found
        if job.state is not JobState.DRAFT:
            return Reply("already_waiting", 400, 401, site=job.site)
        self.desk.submissions.start(user, job.id)
        return Reply("waiting", site=job.site)

    def cancel(self, user: str, message: Named) -> Reply:
        """Withdraw a calculation that waits; by force, whatever it does. It is then forgotten."""
        if (found := self._find(user, message.accept_id)) is None:
            return self._unknown(user, message.accept_id, 400)
        job, _ = found
        forced = message.delete == "force"
        if not forced and job.state not in (JobState.QUEUED, JobState.OFFERED):
            return Reply("not_cancellable", 400, 401, site=job.site)
        self.desk.note_down(job, forgotten=True)
        job = self.desk.cancel(job)
        if job.state.terminal:
            self.desk.submissions.received(user, job.id)
        return Reply("deleted" if forced else "cancelled", site=job.site)

    def status(self, user: str, accept_id: str) -> Reply:
        if (found := self._find(user, accept_id)) is None:
            return self._unknown(user, accept_id, 200)
        return _told(status_of(*found), found[0])

    def progress(self, user: str, accept_id: str) -> Reply:
        if (found := self._find(user, accept_id)) is None:
            return self._unknown(user, accept_id, 200)
        return _told(progress_of(*found), found[0])

    def result(self, user: str, accept_id: str) -> Reply | Files:
        """Return the results of an ended calculation. Call `received` when they were sent."""
        if (found := self._find(user, accept_id, again=True)) is None:
            return self._unknown(user, accept_id, 200)
        job, note = found
        if not job.state.terminal:
            return Reply("not_ended", 200, 400, site=job.site)
        outcome = Outcome(verdict="lost") if not job.result else open_outcome(job.result)
        there = self.desk.port(job).files(outcome.outputs)
        names = dict.fromkeys([*note.results, *LOG_NAMES])
        files = {name: _result(name, there.get(name), note) for name in names}
        code, params = outcome.code or "", outcome.params
        return Files(accept_id, files, site=job.site, code=code, params=params)

    def received(self, user: str, accept_id: str) -> None:
        """Note that the last byte of a result was sent: the calculation is forgotten."""
        self.desk.submissions.received(user, job_id_of(accept_id))

    def listing(self, user: str) -> dict[str, Any]:
        """Return the user's own calculations that old clients know, without contents."""
        found: dict[str, Any] = {}
        for job in self.desk.jobs.every(JobFilter(submitter=user)):
            note = self.desk.note(job)
            if visible(self.desk, job, note):
                found[accept_id_of(job.id)] = {
                    "remote-site": self.desk.policy.value.mint.theirs(job.site),
                    "command": note.command,
                    "status": status_of(job, note),
                    "progress": progress_of(job, note),
                }
        return found

    def _find(self, user: str, accept_id: str, *, again: bool = False) -> tuple[Job, Note] | None:
        if (found := self._own(user, accept_id)) is None:
            return None
        return found if visible(self.desk, *found, again=again) else None

    def _own(self, user: str, accept_id: str) -> tuple[Job, Note] | None:
        try:
            job = self.desk.jobs.get(job_id_of(accept_id), Tenant(submitter=user))
        except (NotFound, UsageError):
            return None
        return job, self.desk.note(job)

    def _unknown(self, user: str, accept_id: str, status: int) -> Reply:
        """Say that there is no such calculation, or why it is there no more: none goes silently."""
        job, note = self._own(user, accept_id) or (None, Note())
        late = job is not None and job.state is JobState.EXPIRED
        key = "expired" if late and note.old_client and not note.forgotten else "unknown_id"
        return Reply(key, status, 400)


def _told(word: str, job: Job) -> Reply:
    return Reply("status", params={"word": word}, site=job.site)


def _note(kept: bytes | None) -> Note:
    return Note() if kept is None else msgspec.json.decode(kept, type=Note)


def visible(desk: MintDesk, job: Job, note: Note, *, again: bool = False) -> bool:
    """Say whether old clients may know of ``job``; ``again``: also soon after it was fetched."""
    if not note.old_client or note.forgotten or job.state in _GONE:
        return False
    if desk.policy.value.mint.site(job.site) is None:
        return False
    if job.received_at is None:
        return True
    return again and desk.clock.now() - job.received_at <= _AGAIN


def status_of(job: Job, note: Note) -> str:
    """Return the old word for how a calculation ended, or `none`."""
    if job.state.terminal:
        return COMPLETED if job.state is JobState.SUCCEEDED else ABNORMAL
    return note.end if job.state is JobState.RETURNING and note.end else "none"


def progress_of(job: Job, note: Note) -> str:
    """Return the old word for how far a calculation is."""
    if job.state.terminal:
        return GOT_RETURN
    if job.state in _WAITING:
        return NOT_START
    if job.state is JobState.ACCEPTED:
        return note.progress or SENDING_PARAMS
    if job.state is JobState.RUNNING:
        return RUNNING
    return GETTING_RETURN if note.results_sent else CALC_END


def _files(info: CalcInfo) -> list[tuple[str, list[str]]]:
    return list(info.parameter_files.items())


def _content(body: Lifted, file: list[str]) -> Piece:
    return body.content(file[0] if file else "")


def _kinds(file: list[str]) -> tuple[str, str]:
    kinds = [*file[1:3], "", ""]
    if any(len(kind) > 256 for kind in kinds):
        raise UsageError("message.invalid", why="length")
    return kinds[0], kinds[1]


def _result(name: str, content: Content | None, note: Note) -> tuple[Content | None, str, str]:
    if content is None:
        return None, ERROR, note.missing.get(name, "")
    first, second = note.returned_kinds.get(name) or kind_of(content)
    return content, first, second
