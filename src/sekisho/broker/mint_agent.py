"""The side of an old agent: it takes jobs of a site that has no manifest.

Rule 1: only for sites that the operator declared unguarded, and only commands of the operator's
        list, exactly as they stand there.
Rule 2: who asks is a token: the site's own, or a user's, who then gets this user's jobs alone.
Rule 3: a job is offered to one token, and taken at most once: inputs are sent again only to who
        can be nobody else, so that a cut answer does not end a calculation.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import structlog
from msgspec.structs import replace

from sekisho.broker.chunks import Claim
from sekisho.broker.jobs import HELD
from sekisho.broker.mint import Files, MintDesk
from sekisho.broker.ports import EVERYONE, JobFilter, Tenant, Token
from sekisho.domain.access import Principal, Role
from sekisho.domain.errors import Conflict, NotFound, SekishoError, UsageError
from sekisho.domain.files import Pattern, RelPath
from sekisho.domain.ids import ENTROPY_BYTES, make_id
from sekisho.domain.job import (
    Accepted,
    Attention,
    Ended,
    Event,
    Job,
    JobState,
    Offered,
    Refused,
    Returned,
    SiteEvent,
    Started,
    Stopped,
    already,
    apply,
)
from sekisho.domain.limits import OFFER_TIME
from sekisho.transfer.spooled import SpooledTree
from sekisho.wire.envelope import MintRequest, Outcome, Request, open_request, seal
from sekisho.wire.mint import (
    ABNORMAL,
    CALC_END,
    COMPLETE_SEND,
    COMPLETED,
    END_SEND,
    ERROR,
    LOG_NAMES,
    SENDING_PARAMS,
    Named,
    Note,
    Reply,
    SentResults,
    accept_id_of,
    job_id_of,
)
from sekisho.wire.mint_body import Lifted

#: What an old agent is called where agents' versions are shown.
AGENT_VERSION: Final = "MInt"
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class OldAgent:
    """Whoever calls as the agent of ``site``, for all of its jobs or for those of ``user``."""

    site: str
    user: str | None
    instance: str
    address: str
    takes: bool  #: may get more; else it may only end what it holds

    @property
    def tenant(self) -> Tenant:
        return Tenant(site=self.site, submitter=self.user)


@dataclass(frozen=True, slots=True)
class MintWork:
    """What an old agent asks and tells."""

    desk: MintDesk

    def agent(self, caller: Principal, site: str, address: str) -> OldAgent | None:
        """Return the caller as the site's agent; None when it is not the caller's to serve."""
        instance = _instance(caller.token_id)
        mint = self.desk.policy.value.mint
        if mint.site(site) is None:
            return None
        takes = mint.unguarded(site)
        if caller.role is Role.SITE and caller.name == site:
            return OldAgent(site, None, instance, address, takes)
        if caller.role is Role.SUBMITTER and self.desk.site(site, caller.name):
            return OldAgent(site, caller.name, instance, address, takes)
        return None

    def orphaned(self, tokens: Iterable[Token]) -> list[str]:
        """Flag and return the jobs that an old agent computes with a token that is worthless now.

        No other token may tell of them, so each stays until a person declares it lost. Idempotent.
        """
        now = self.desk.clock.now()

        def decide(job: Job) -> Job:
            if job.state not in HELD or job.attention is Attention.UNKNOWN_FATE:
                return job
            return dataclasses.replace(
                job, attention=Attention.UNKNOWN_FATE, version=job.version + 1
            )

        shut_out, jobs = {_instance(t.id) for t in tokens if t.worthless(now)}, self.desk.jobs
        held = jobs.every(JobFilter(states=HELD)) if shut_out else ()
        left = [job.id for job in held if job.instance in shut_out]
        for job_id in left:
            jobs.change(job_id, EVERYONE, decide)
        return left

    def request(self, agent: OldAgent) -> Reply:
        """Offer the caller one waiting job, for a time; nobody else gets it meanwhile."""
        desk = self.desk
        site = desk.sites.site(agent.site)
        if site is None or site.disabled:
            return Reply("nothing", code="0300")
        while True:
            now = desk.clock.now()
            job = desk.jobs.store.offer_next(
                agent.site, agent.instance, now=now, until=now + OFFER_TIME, submitter=agent.user
            )
            if job is None:
                return Reply("nothing", code="0300")
            desk.jobs.told(job, before=None)
            if self._prepared(agent, job):
                return Reply("offered", beside={"accept_id": accept_id_of(job.id)})

    def params(self, agent: OldAgent, accept_id: str) -> Reply | Files:
        """Give the job to the caller, with all that it needs."""
        job = self._find(agent, accept_id)
        if job is None or not (agent.takes or job.instance == agent.instance):
            return Reply("unknown_id", 400, 400)
        if not self._may_take(agent, job):
            return Reply("not_waiting")
        if job.state is not JobState.ACCEPTED:
            try:
                job = self._taken(agent, job)
            except Conflict:
                return Reply("not_waiting")
        self.desk.note_down(job, progress=SENDING_PARAMS, sent_to=agent.address)
        note = self.desk.note(job)
        there = self.desk.port(job, _claim(job)).files(note.inputs)
        files = {
            name: (content, *note.kinds.get(name, ("", ""))) for name, content in there.items()
        }
        site = self.desk.policy.value.mint.theirs(job.site)
        return Files(accept_id=accept_id, files=files, info=note, site=site)

    def complete(self, agent: OldAgent, message: Named) -> Reply:
        """Note that the caller has all inputs."""
        job = self._held(agent, message.accept_id)
        if job is None or job.state is not JobState.ACCEPTED:
            return Reply("wrong_order", 400, 400)
        self.desk.note_down(job, progress=COMPLETE_SEND)
        return Reply("noted")

    def start(self, agent: OldAgent, message: Named) -> Reply:
        job = self._held(agent, message.accept_id)
        if job is None or self._progress(job) != COMPLETE_SEND:
            return Reply("wrong_order", 400, 400)
        return self._happened(job, Started)

    def end(self, agent: OldAgent, message: Named) -> Reply:
        """Note that the command ended, and how."""
        if message.result not in (CALC_END, ABNORMAL):
            return Reply("bad_result", 400, 400)
        job = self._held(agent, message.accept_id)
        if job is None or job.state not in (JobState.RUNNING, JobState.RETURNING):
            return Reply("wrong_order", 400, 400)
        end = COMPLETED if message.result == CALC_END else ABNORMAL
        try:
            self.desk.change(job, lambda note: _ended(note, end))
        except Conflict:
            return Reply("wrong_order", 400, 400)
        return self._happened(job, Ended)

    def results(self, agent: OldAgent, body: Lifted, message: SentResults) -> Reply:
        """Keep the results that were asked for; what was not is dropped."""
        job = self._held(agent, message.accept_id)
        if job is None or job.state is not JobState.RETURNING:
            return Reply("wrong_order", 400, 400)
        note = self.desk.note(job)
        sent = {
            name: (file, body.content(file.content)) for name, file in message.result_files.items()
        }
        body.check_all_used()
        wanted = {*note.results, *LOG_NAMES}
        there = {n: s for n, s in sent.items() if n in wanted and s[0].mimetype1 != ERROR}
        tree = SpooledTree(body.spool, {RelPath.parse(n): s[1] for n, s in there.items()})
        ref = self.desk.port(job, _claim(job)).store(tree) if there else None
        self.desk.note_down(
            job,
            returned=ref,
            returned_kinds={n: (f.mimetype1, f.mimetype2) for n, (f, _) in there.items()},
            missing={
                n: f.mimetype2 for n, (f, _) in sent.items() if n in wanted and n not in there
            },
            results_sent=True,
        )
        return Reply("noted")

    def finish(self, agent: OldAgent, message: Named) -> Reply:
        """End the job with what was sent."""
        if message.result != END_SEND:
            return Reply("bad_result", 400, 400)
        job = self._held(agent, message.accept_id)
        note = Note() if job is None else self.desk.note(job)
        if job is None or not note.results_sent:
            return Reply("wrong_order", 400, 400)
        ok = note.end == COMPLETED
        code = None if ok else "mint.abnormal"
        outcome = Outcome(
            verdict="succeeded" if ok else "failed",
            exit_code=0 if ok else 1,
            code=code,
            outputs=note.returned,
        )
        tree = note.returned.digest if note.returned else None
        return self._happened(job, Returned, ok=ok, result=seal(outcome), tree=tree)

    # --- how a job is offered and held -------------------------------------------------------

    def _prepared(self, agent: OldAgent, job: Job) -> bool:
        """Make sure that an old agent can serve ``job``; refuse it in the site's place if not."""
        note = self.desk.note(job)
        try:
            wanted = _wanted(job, self._commands(job.site))
            if not note.old_client:
                self._check_flat(job, wanted)
        except SekishoError as error:
            result = seal(Outcome(verdict="refused", code=error.code, params=_texts(error)))
            self._apply(job, Refused, result=result)
            log.info("job_refused", job=job.id, site=job.site, code=error.code)
            return False

        def told(kept: Note) -> Note:
            times = {**kept.told, agent.address: kept.told.get(agent.address, 0) + 1}
            return replace(kept if kept.old_client else wanted, told=times)

        self.desk.change(job, told)
        return True

    def _commands(self, name: str) -> dict[str, str]:
        """Return the operator's list, without what is switched off."""
        listed, site = self.desk.policy.value.mint.site(name), self.desk.sites.site(name)
        off = site.disabled_commands if site else frozenset()
        return {n: c for n, c in listed.commands.items() if n not in off} if listed else {}

    def _check_flat(self, job: Job, wanted: Note) -> None:
        """Refuse inputs in folders: an old agent has one directory."""
        for name in self.desk.port(job, _claim(job)).files(wanted.inputs):
            if "/" in name:
                raise UsageError("input.unexpected", input=name)

    def _may_take(self, agent: OldAgent, job: Job) -> bool:
        if job.state is JobState.QUEUED:
            return self.desk.note(job).command != ""
        if job.instance != agent.instance or job.cancel_requested:
            return False
        if job.state is JobState.OFFERED:
            return agent.takes
        if job.state is JobState.ACCEPTED:
            note = self.desk.note(job)
            return _alone(note, agent) and note.progress != COMPLETE_SEND
        return False

    def _taken(self, agent: OldAgent, job: Job) -> Job:
        """Accept ``job`` for the caller; an offer that ran out is made again. Once, for one."""
        now = self.desk.clock.now()

        def decide(job: Job) -> Job:
            if job.state is JobState.QUEUED:
                until = now + OFFER_TIME
                return apply(job, Offered(at=now, instance=agent.instance, until=until))
            return job

        job = self.desk.jobs.change(job.id, agent.tenant, decide)
        event = Accepted(at=now, epoch=job.epoch, instance=agent.instance)
        return self.desk.jobs.change(job.id, agent.tenant, lambda job: apply(job, event))

    def _find(self, agent: OldAgent, accept_id: str) -> Job | None:
        try:
            return self.desk.jobs.get(job_id_of(accept_id), agent.tenant)
        except (NotFound, UsageError):
            return None

    def _held(self, agent: OldAgent, accept_id: str) -> Job | None:
        """Return the job if the caller holds it and nobody wants it stopped; else None.

        Asked to stop, it is seen dead here: an old agent asks only before and after a command.
        """
        job = self._find(agent, accept_id)
        if job is None or job.instance != agent.instance:
            return None
        if job.cancel_requested and job.state in (JobState.ACCEPTED, JobState.RUNNING):
            self._apply(job, Stopped, result=seal(Outcome(verdict="cancelled")))
            return None
        return job

    def _progress(self, job: Job) -> str:
        """Return the progress at which a start may come, or came: its answer may be lost."""
        if job.state is JobState.RUNNING:
            return COMPLETE_SEND
        return self.desk.note(job).progress if job.state is JobState.ACCEPTED else ""

    def _happened(self, job: Job, kind: type[SiteEvent], **facts: object) -> Reply:
        try:
            self._apply(job, kind, **facts)
        except Conflict as error:
            if error.code == "job.outputs_missing":
                raise
            return Reply("wrong_order", 400, 400)
        return Reply("noted")

    def _apply(self, job: Job, kind: type[SiteEvent], **facts: object) -> Job:
        event: Event = kind(
            at=self.desk.clock.now(),
            epoch=job.epoch,
            instance=job.instance or "",
            **facts,
        )
        tenant = Tenant(site=job.site)
        return self.desk.jobs.change(
            job.id, tenant, lambda job: job if already(job, event) else apply(job, event)
        )


def _instance(token_id: str) -> str:
    entropy = hashlib.sha256(token_id.encode()).digest()[:ENTROPY_BYTES]
    return make_id("ins", at_ms=0, entropy=entropy)


def _alone(note: Note, agent: OldAgent) -> bool:
    """Say whether the inputs went to nobody but ``agent``, who then may get them again.

    Agents with one token are told apart by their addresses alone, and behind a gateway not at all:
    whoever was told of a job twice from one address may be two.
    """
    if sum(note.told.values()) == 1:
        return True
    return note.sent_to == agent.address and note.told.get(agent.address) == 1


def _ended(note: Note, end: str) -> Note:
    """Return ``note`` with how the command ended; that is told once, and stays."""
    if note.end not in ("", end):
        raise Conflict
    return replace(note, end=end)


def _claim(job: Job) -> Claim:
    return Claim(tenant=Tenant(site=job.site), epoch=job.epoch, instance=job.instance)


def _wanted(job: Job, commands: dict[str, str]) -> Note:
    """Return what an old agent must know to serve ``job``; raise when it cannot, or must not."""
    request = open_request(job.request)
    command = _command(request, commands)
    if request.parameters:
        raise UsageError("parameter.unknown", parameter=min(request.parameters))
    return Note(
        command=command,
        inputs=request.inputs,
        results=list(_exact(text for text in request.outputs if text not in LOG_NAMES)),
    )


def _command(request: Request, commands: dict[str, str]) -> str:
    if isinstance(request, MintRequest):
        if request.mint_command not in commands.values():
            raise UsageError("command.unknown", command=request.mint_command[:64])
        return request.mint_command
    if request.command not in commands:
        raise UsageError("command.unknown", command=request.command)
    return commands[request.command]


def _exact(names: Iterable[str]) -> Iterable[str]:
    """Return ``names``, each of one file: an old agent knows no patterns."""
    for name in names:
        if not Pattern(name).literal:
            raise UsageError("output.not_permitted", output=name)
        yield name


def _texts(error: SekishoError) -> dict[str, str | int]:
    return {n: v for n, v in error.params.items() if isinstance(v, str | int)}
