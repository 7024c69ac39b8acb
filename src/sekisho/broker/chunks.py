"""The chunks of a job: declared first, then stored, then fetched, by either side.

Rule 1: only declared chunks are stored, and only those of the caller's own job are given out.
Rule 2: what a declaration would hold is checked against every quota in the step that writes it.
Rule 3: a site speaks of a job under the epoch that it holds; a stale one learns nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from sekisho.broker.arriving import Arriving, arrival_topic
from sekisho.broker.holding import Holding
from sekisho.broker.jobs import HELD, WAITING, Jobs, site_topic
from sekisho.broker.policy import CurrentPolicy, Policy
from sekisho.broker.ports import BlobStore, JobLedger, Tenant, space_of
from sekisho.domain.clock import Clock
from sekisho.domain.errors import (
    IntegrityError,
    InvalidTransition,
    NotFound,
    QuotaExceeded,
    StorageFull,
    UsageError,
)
from sekisho.domain.job import Job, JobState, SiteEvent, check_epoch
from sekisho.domain.limits import EARLY_BYTES
from sekisho.wire.frames import Chunk, Frame

_DRAFT: Final = frozenset({JobState.DRAFT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Who speaks of a job: its submitter, or the instance of its site that holds it."""

    tenant: Tenant
    epoch: int | None = None
    instance: str | None = None


@dataclass(frozen=True, slots=True)
class Chunks:
    """The chunk store as one job sees it."""

    jobs: Jobs
    ledger: JobLedger
    blobs: BlobStore
    policy: CurrentPolicy
    clock: Clock
    arriving: Arriving = field(default_factory=Arriving)

    def missing(self, claim: Claim, job_id: str, chunks: Sequence[Chunk]) -> list[str]:
        """Declare that the job needs ``chunks``; return the digests of those not stored.

        New ones only while they may still arrive: inputs of a draft, outputs of a job in hand.
        """
        job = self.open(claim, job_id)
        digests = [chunk.digest for chunk in chunks]
        known = set(self.ledger.declared(job.id, digests))
        if new := [chunk for chunk in dict.fromkeys(chunks) if chunk not in known]:
            self._may_declare(claim, job, new)
            self.ledger.declare(job.id, new, partial(_allowed, self.policy.value, job))
        missing = self.blobs.missing(_space(job), digests)
        if claim.tenant.submitter is not None and missing:
            self._announce(job, chunks, set(missing))
        return missing

    def waiting(self, site: str, job_id: str) -> Job:
        """Return a job of ``site`` that no agent has taken; raise NotFound or InvalidTransition."""
        job = self.jobs.get(job_id, Tenant(site=site))
        if job.state not in WAITING:
            raise InvalidTransition(job=job.id, state=job.state.value, event="FetchedEarly")
        return job

    def arrived(self, job: Job, digests: Sequence[str], least: int) -> list[Chunk]:
        """Return those of ``digests`` that the job has declared and that are stored.

        When they are less than ``least`` bytes, a notice comes once so many more were stored.
        """
        so_far = self.arriving.so_far(job.id)
        here = self._here(job, digests)
        lacking = least - sum(chunk.size for chunk in here)
        if lacking > 0 and self.arriving.wanted(job.id, so_far + lacking):
            self.jobs.wakeups.notify(arrival_topic(job.id))
        return here

    def _here(self, job: Job, digests: Sequence[str]) -> list[Chunk]:
        declared = {chunk.digest: chunk for chunk in self.ledger.declared(job.id, digests)}
        asked = [digest for digest in dict.fromkeys(digests) if digest in declared]
        missing = set(self.blobs.missing(_space(job), asked))
        return [declared[digest] for digest in asked if digest not in missing]

    def open(self, claim: Claim, job_id: str) -> Job:
        """Return the job that ``claim`` may speak of; raise NotFound or StaleEpoch."""
        job = self.jobs.get(job_id, claim.tenant)
        if claim.tenant.submitter is None:
            said = SiteEvent(
                at=self.clock.now(), epoch=claim.epoch or 0, instance=claim.instance or ""
            )
            check_epoch(job, said)
        return job

    def store(self, job: Job, frames: Sequence[Frame]) -> None:
        """Store declared chunks durably, as they came, verified. Idempotent."""
        chunks = [frame.chunk for frame in frames]
        declared = set(self.ledger.declared(job.id, [chunk.digest for chunk in chunks]))
        for chunk in chunks:
            if chunk not in declared:
                raise IntegrityError("chunk.undeclared", digest=chunk.digest)
        size = sum(len(frame.payload) for frame in frames)
        self._room(size)
        self.blobs.put(_space(job), frames)
        self.jobs.meter.add("chunk_bytes", size, direction="in")
        if self.arriving.stored(job.id, sum(chunk.size for chunk in chunks)):
            self.jobs.wakeups.notify(arrival_topic(job.id))

    def fetch(
        self, job: Job, digests: Sequence[str], *, verify: bool = False
    ) -> tuple[int, Iterator[Frame]]:
        """Return the bytes in all, and the chunks one by one; raise NotFound unless all are here.

        A chunk that another job declared does not exist for this one. Whoever takes them verifies
        them, and asks again with ``verify`` for what is wrong: then damage here is found, and
        IntegrityError(`chunk.damaged`), and the chunk is missing from then on.
        """
        declared = {chunk.digest: chunk for chunk in self.ledger.declared(job.id, digests)}
        if not declared.keys() >= set(digests):
            raise NotFound("chunk.not_found", job=job.id)
        space, chunks = _space(job), [declared[digest] for digest in digests]
        return self.blobs.size(space, digests), self._read(space, chunks, verify=verify)

    def _read(self, space: str, chunks: Sequence[Chunk], *, verify: bool) -> Iterator[Frame]:
        for chunk in chunks:
            read = self.blobs.read(space, chunk.digest) if verify else self.blobs.take(space, chunk)
            self.jobs.meter.add("chunk_bytes", len(read.payload), direction="out")
            yield read

    def _announce(self, job: Job, chunks: Sequence[Chunk], missing: set[str]) -> None:
        """Let the site hear of a draft that is about to bring much."""
        coming = sum(chunk.size for chunk in chunks if chunk.digest in missing)
        if coming >= EARLY_BYTES and job.state is JobState.DRAFT and job.request_digest:
            self.arriving.begun(job.site, job.id)
            self.jobs.wakeups.notify(site_topic(job.site))

    def _may_declare(self, claim: Claim, job: Job, chunks: Sequence[Chunk]) -> None:
        states = HELD if claim.tenant.submitter is None else _DRAFT
        if job.state not in states:
            raise InvalidTransition(job=job.id, state=job.state.value, event="Declared")
        if any(chunk.size < 1 for chunk in chunks):
            raise UsageError("message.invalid", why="size")
        self._room(sum(chunk.size for chunk in chunks))

    def _room(self, size: int) -> None:
        if self.blobs.free_bytes() - size < self.policy.value.free_floor_bytes:
            raise StorageFull


def _allowed(policy: Policy, job: Job, holding: Holding) -> None:
    for kind, name, held, limit in (
        ("job", job.id, holding.job, policy.job_bytes),
        ("site", job.site, holding.site, policy.site.stored_bytes),
        ("submitter", job.submitter, holding.submitter, policy.submitter.stored_bytes),
    ):
        if held > limit:
            raise QuotaExceeded("quota.bytes", kind=kind, name=name, limit=limit)


def _space(job: Job) -> str:
    return space_of(site=job.site, submitter=job.submitter)
