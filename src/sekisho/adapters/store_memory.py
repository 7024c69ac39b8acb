"""The broker's store in dictionaries: one lock, nothing on disk. The reference for the others."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from sekisho.broker.holding import Allow, AllowJob, Holding, Usage, anything
from sekisho.broker.ports import (
    BlobStore,
    JobFilter,
    MintUse,
    Sighting,
    Site,
    Store,
    Tenant,
    Token,
    space_of,
)
from sekisho.domain.access import Principal, Role
from sekisho.domain.errors import Conflict, IntegrityError, NotFound
from sekisho.domain.job import Job, JobState, Offered, apply
from sekisho.domain.limits import DRAFT_TIME
from sekisho.wire.frames import Chunk


@dataclass(frozen=True, slots=True)
class _State:
    lock: threading.RLock = field(default_factory=threading.RLock)
    jobs: dict[str, Job] = field(default_factory=dict)
    pins: dict[str, dict[str, int]] = field(default_factory=dict)
    history: dict[str, list[tuple[datetime, JobState]]] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)
    sites: dict[str, Site] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict)
    redeemed: dict[str, str] = field(default_factory=dict)
    snapshots: dict[str, bytes] = field(default_factory=dict)
    notes: dict[str, bytes] = field(default_factory=dict)
    uses: dict[tuple[str, str], MintUse] = field(default_factory=dict)


def memory_store() -> Store:
    """Return an empty store."""
    state = _State()
    return Store(
        jobs=MemoryJobs(state),
        ledger=MemoryLedger(state),
        retention=MemoryRetention(state),
        directory=MemoryDirectory(state),
        snapshots=MemorySnapshots(state),
        mint=MemoryMintNotes(state),
        at_hand=True,
    )


class MemoryJobs:
    """Implements `broker.ports.JobStore`."""

    def __init__(self, state: _State) -> None:
        self._state = state

    def add(self, job: Job, allow: AllowJob = anything) -> Job:
        with self._state.lock:
            if job.id in self._state.forgotten:
                raise Conflict("job.forgotten", job=job.id)
            kept = self._state.jobs.get(job.id)
            if kept is None:
                allow(
                    self._with(job, Tenant(site=job.site)),
                    self._with(job, Tenant(submitter=job.submitter)),
                )
                self._write(job)
                return job
            if not kept.resembles(job):
                raise Conflict("job.different_request", job=job.id)
            return kept

    def get(self, job_id: str, tenant: Tenant) -> Job:
        with self._state.lock:
            job = self._state.jobs.get(job_id)
        if job is None or not _visible(job, tenant):
            raise NotFound("job.not_found", job=job_id)
        return job

    def save(self, job: Job, *, expected_version: int, passed: Sequence[Job] = ()) -> bool:
        with self._state.lock:
            kept = self._state.jobs.get(job.id)
            if kept is None or kept.version != expected_version:
                return False
            for state in (*passed, job):
                self._write(state)
            return True

    def offer_next(
        self,
        site: str,
        instance: str,
        *,
        now: datetime,
        until: datetime,
        submitter: str | None = None,
    ) -> Job | None:
        asked = Tenant(site=site, submitter=submitter)
        with self._state.lock:
            queue = (
                job
                for job in self._state.jobs.values()
                if _visible(job, asked) and job.state is JobState.QUEUED and job.expires_at > now
            )
            job = min(queue, key=lambda job: (job.created_at, job.id), default=None)
            if job is None:
                return None
            offered = apply(job, Offered(at=now, instance=instance, until=until))
            self._write(offered)
            return offered

    def page(self, which: JobFilter, *, after: str | None, limit: int) -> list[Job]:
        with self._state.lock:
            jobs = sorted(self._state.jobs.values(), key=lambda job: job.id, reverse=True)
        return [job for job in jobs if _listed(job, which) and (after is None or job.id < after)][
            :limit
        ]

    def due(self, now: datetime, *, limit: int) -> list[Job]:
        with self._state.lock:
            return [job for job in self._state.jobs.values() if _due(job, now)][:limit]

    def _with(self, job: Job, tenant: Tenant) -> Usage:
        """Return what the jobs of ``tenant`` hold, and ``job``, which has nothing yet."""
        held = _usage(self._state, tenant)
        return replace(held, live_jobs=held.live_jobs + (not job.state.terminal))

    def _write(self, job: Job) -> None:
        kept = self._state.jobs.get(job.id)
        if kept is None or kept.state is not job.state:
            at = job.changed_at or job.created_at
            self._state.history.setdefault(job.id, []).append((at, job.state))
        self._state.jobs[job.id] = job


class MemoryLedger:
    """Implements `broker.ports.JobLedger`."""

    def __init__(self, state: _State) -> None:
        self._state = state

    def declare(self, job_id: str, chunks: Sequence[Chunk], allow: Allow = anything) -> int:
        with self._state.lock:
            job = self._state.jobs.get(job_id)
            if job is None:
                raise NotFound("job.not_found", job=job_id)
            before = self._state.pins.get(job_id, {})
            pins = dict(before)
            for chunk in chunks:
                if pins.setdefault(chunk.digest, chunk.size) != chunk.size:
                    raise IntegrityError("chunk.size", digest=chunk.digest)
            held, new = sum(pins.values()), sum(pins.values()) - sum(before.values())
            if pins != before:
                site = self.usage(site=job.site).stored_bytes + new
                submitter = self.usage(submitter=job.submitter).stored_bytes + new
                allow(Holding(job=held, site=site, submitter=submitter))
            self._state.pins[job_id] = pins
            return held

    def needs(self, job_id: str, digests: Sequence[str]) -> bool:
        with self._state.lock:
            return self._state.pins.get(job_id, {}).keys() >= set(digests)

    def declared(self, job_id: str, among: Sequence[str] | None = None) -> list[Chunk]:
        with self._state.lock:
            pins = dict(self._state.pins.get(job_id, {}))
        wanted = pins.keys() if among is None else pins.keys() & set(among)
        return [Chunk(digest, pins[digest]) for digest in sorted(wanted)]

    def usage(self, *, site: str | None = None, submitter: str | None = None) -> Usage:
        with self._state.lock:
            return _usage(self._state, Tenant(site=site, submitter=submitter))

    def counts(self) -> dict[tuple[str, JobState], int]:
        with self._state.lock:
            return dict(Counter((job.site, job.state) for job in self._state.jobs.values()))

    def history(self, job_id: str) -> list[tuple[datetime, JobState]]:
        with self._state.lock:
            return list(self._state.history.get(job_id, []))


class MemoryRetention:
    """Implements `broker.ports.Retention`."""

    def __init__(self, state: _State) -> None:
        self._state = state

    def purgeable(
        self, *, received_before: datetime, ended_before: datetime, limit: int
    ) -> list[Job]:
        with self._state.lock:
            ended = [job for job in self._state.jobs.values() if job.state.terminal]
        return [
            job
            for job in ended
            if (job.changed_at or job.created_at) < ended_before
            or (job.received_at is not None and job.received_at < received_before)
        ][:limit]

    def purge(self, job_id: str) -> None:
        with self._state.lock:
            job = self._state.jobs.get(job_id)
            if job is None:
                return
            if not job.state.terminal:
                raise Conflict("job.not_ended", job=job_id)
            self._state.forgotten.add(job_id)
            del self._state.jobs[job_id]
            self._state.pins.pop(job_id, None)
            self._state.history.pop(job_id, None)
            self._state.notes.pop(job_id, None)
            self._state.snapshots.pop(job_id, None)

    def unpinned(self, space: str, digests: Sequence[str], delete: BlobStore) -> list[str]:
        with self._state.lock:
            pinned = set(self._pinned(space))
            gone = [digest for digest in digests if digest not in pinned]
            delete.delete(space, gone)
            return gone

    def _pinned(self, space: str) -> Iterator[str]:
        for job_id, pins in self._state.pins.items():
            job = self._state.jobs[job_id]
            if space_of(site=job.site, submitter=job.submitter) == space:
                yield from pins


class MemorySnapshots:
    """Implements `broker.ports.Snapshots`."""

    def __init__(self, state: _State) -> None:
        self._state = state

    def keep(self, job_id: str, snapshot: bytes) -> None:
        with self._state.lock:
            if job_id not in self._state.jobs:
                raise NotFound("job.not_found", job=job_id)
            self._state.snapshots[job_id] = snapshot

    def last(self, job_id: str) -> bytes | None:
        with self._state.lock:
            return self._state.snapshots.get(job_id)


class MemoryMintNotes:
    """Implements `broker.ports.MintNotes`."""

    def __init__(self, state: _State) -> None:
        self._state = state

    def note(self, job_id: str) -> bytes | None:
        with self._state.lock:
            return self._state.notes.get(job_id)

    def change(self, job_id: str, decide: Callable[[bytes | None], bytes]) -> None:
        with self._state.lock:
            if job_id not in self._state.jobs:
                raise NotFound("job.not_found", job=job_id)
            self._state.notes[job_id] = decide(self._state.notes.get(job_id))

    def used(self, site: str, side: str, *, calls: int, at: datetime) -> None:
        with self._state.lock:
            before = self._state.uses.get((site, side))
            calls += before.calls if before else 0
            self._state.uses[site, side] = MintUse(site=site, side=side, calls=calls, last_at=at)

    def uses(self) -> list[MintUse]:
        with self._state.lock:
            return [use for _, use in sorted(self._state.uses.items())]


class MemoryDirectory:
    """Implements `broker.ports.Directory`."""

    def __init__(self, state: _State) -> None:
        self._state = state

    def principal_for(self, token_hash: str, now: datetime) -> Principal | None:
        with self._state.lock:
            for token in self._state.tokens.values():
                if token.hash == token_hash and self._valid(token, now):
                    return Principal(token_id=token.id, role=token.role, name=token.name)
        return None

    def tokens(self, *, role: Role | None = None) -> list[Token]:
        with self._state.lock:
            tokens = [t for t in self._state.tokens.values() if role in {None, t.role}]
        return sorted(tokens, key=lambda token: (token.created_at, token.id))

    def put_token(self, token: Token) -> None:
        with self._state.lock:
            if any(t.hash == token.hash and t.id != token.id for t in self._state.tokens.values()):
                raise Conflict("token.exists")
            self._state.tokens[token.id] = token

    def redeem(self, invitation_id: str, token: Token, now: datetime) -> bool:
        with self._state.lock:
            used_for = self._state.redeemed.get(invitation_id)
            if used_for is not None:
                return used_for == token.hash
            invitation = self._state.tokens.get(invitation_id)
            if invitation is None or not self._invites(invitation, token, now):
                return False
            self.put_token(token)
            self._revoke_others(token, now)
            self._state.redeemed[invitation_id] = token.hash
            return True

    def site(self, site_id: str) -> Site | None:
        with self._state.lock:
            return self._state.sites.get(site_id)

    def sites(self) -> list[Site]:
        with self._state.lock:
            return sorted(self._state.sites.values(), key=lambda site: site.id)

    def put_site(self, site: Site) -> None:
        with self._state.lock:
            kept = self._state.sites.get(site.id)
            self._state.sites[site.id] = (
                site
                if kept is None
                else replace(
                    kept,
                    submitters=site.submitters,
                    disabled=site.disabled,
                    disabled_commands=site.disabled_commands,
                )
            )

    def seen(self, sightings: Sequence[Sighting]) -> None:
        with self._state.lock:
            for one in sightings:
                if (kept := self._state.sites.get(one.site)) is not None:
                    self._state.sites[one.site] = replace(
                        kept,
                        last_seen_at=one.at,
                        agent_version=one.agent_version,
                        instance=one.instance,
                    )

    def _valid(self, token: Token, now: datetime) -> bool:
        if token.worthless(now):
            return False
        return token.role not in {Role.SITE, Role.INVITATION} or token.name in self._state.sites

    def _invites(self, invitation: Token, token: Token, now: datetime) -> bool:
        right = invitation.role is Role.INVITATION and invitation.name == token.name
        return right and token.role is Role.SITE and self._valid(invitation, now)

    def _revoke_others(self, token: Token, now: datetime) -> None:
        for other in list(self._state.tokens.values()):
            same = other.role is Role.SITE and other.name == token.name and other.id != token.id
            if same and other.revoked_at is None:
                self._state.tokens[other.id] = replace(other, revoked_at=now)


def _usage(state: _State, tenant: Tenant) -> Usage:
    jobs = [job for job in state.jobs.values() if _visible(job, tenant)]
    return Usage(
        live_jobs=sum(not job.state.terminal for job in jobs),
        stored_bytes=sum(sum(state.pins.get(job.id, {}).values()) for job in jobs),
    )


def _visible(job: Job, tenant: Tenant) -> bool:
    return tenant.site in {None, job.site} and tenant.submitter in {None, job.submitter}


def _listed(job: Job, which: JobFilter) -> bool:
    return (
        _visible(job, Tenant(site=which.site, submitter=which.submitter))
        and (which.states is None or job.state in which.states)
        and (which.ids is None or job.id in which.ids)
        and (job.cancel_requested or not which.cancelling)
    )


def _due(job: Job, now: datetime) -> bool:
    match job.state:
        case JobState.OFFERED:
            return job.offer_until is not None and job.offer_until <= now
        case JobState.QUEUED:
            return job.expires_at <= now
        case JobState.DRAFT:
            return job.expires_at <= now or job.created_at + DRAFT_TIME <= now
        case _:
            return False
