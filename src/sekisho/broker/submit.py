"""What a submitter does with jobs: submit, start, cancel, look, and say that the result arrived.

Every call may be repeated after a lost reply and is then answered the same. A site that does not
list the submitter does not exist for them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

import msgspec

from sekisho.broker.holding import Usage
from sekisho.broker.jobs import WAITING, Jobs
from sekisho.broker.policy import CurrentPolicy, Policy
from sekisho.broker.ports import BlobStore, JobFilter, JobLedger, Sites, Tenant, space_of
from sekisho.domain.clock import Clock
from sekisho.domain.errors import Conflict, NotFound, QuotaExceeded, Refused
from sekisho.domain.job import (
    Cancelled,
    CancelRequested,
    Described,
    InputsComplete,
    Job,
    JobState,
    already,
    apply,
    mark_received,
)
from sekisho.domain.limits import DRAFT_TIME, MAX_DIGESTS, QUEUE_TIME
from sekisho.wire.v1 import OpenDraft, SubmitJob


@dataclass(frozen=True, slots=True)
class Submissions:
    """The submitter's side of the broker."""

    jobs: Jobs
    ledger: JobLedger
    blobs: BlobStore
    sites: Sites
    policy: CurrentPolicy
    clock: Clock

    def submit(self, user: str, message: SubmitJob) -> tuple[Job, bool]:
        """Keep a new job and return it with True, or the one kept before with False.

        Raise NotFound for a site that does not serve ``user``, Refused, QuotaExceeded or Conflict.
        """
        digest = request_digest(user, message)
        kept = self._kept(user, message.id)
        if kept is None:
            kept, new = self._add(self._new(user, message, digest))
            if new:
                return kept, True
        return self._described(kept, message, digest), False

    def open(self, user: str, message: OpenDraft) -> tuple[Job, bool]:
        """Keep a draft whose request comes later, and return it with True; else as `submit`."""
        if kept := self._kept(user, message.id):
            if kept.site != message.site:
                raise Conflict("job.different_request", job=message.id)
            return kept, False
        return self._add(self._draft(user, message, DRAFT_TIME))

    def start(self, user: str, job_id: str) -> Job:
        """Queue a draft whose declared inputs are all here; else raise Conflict."""
        event = InputsComplete(at=self.clock.now())

        def decide(job: Job) -> Job:
            if already(job, event) or job.state is not JobState.DRAFT:
                return job if already(job, event) else apply(job, event)
            if not job.request_digest:
                raise Conflict("job.not_described", job=job.id)
            if missing := missing_chunks(job, self.ledger, self.blobs):
                raise Conflict("job.inputs_missing", job=job.id, count=missing)
            return apply(job, event)

        return self.jobs.change(job_id, Tenant(submitter=user), decide)

    def cancel(self, user: str, job_id: str) -> Job:
        """End a job that nobody has; ask the site that has it to stop; leave an ended one alone."""
        now = self.clock.now()

        def decide(job: Job) -> Job:
            if job.state.terminal or job.cancel_requested:
                return job
            if job.state in WAITING:
                return apply(job, Cancelled(at=now))
            return apply(job, CancelRequested(at=now))

        return self.jobs.change(job_id, Tenant(submitter=user), decide)

    def received(self, user: str, job_id: str) -> Job:
        """Note that the submitter has the result safe; from now on it may be forgotten."""
        now = self.clock.now()
        return self.jobs.change(job_id, Tenant(submitter=user), lambda job: mark_received(job, now))

    def view(self, user: str, job_id: str) -> Job:
        return self.jobs.get(job_id, Tenant(submitter=user))

    def page(self, user: str, which: JobFilter, *, after: str | None, limit: int) -> list[Job]:
        """Return the user's own jobs, newest first."""
        own = JobFilter(site=which.site, submitter=user, states=which.states)
        return self.jobs.store.page(own, after=after, limit=limit)

    def _kept(self, user: str, job_id: str) -> Job | None:
        try:
            return self.jobs.get(job_id, Tenant(submitter=user))
        except NotFound:
            return None

    def _add(self, job: Job) -> tuple[Job, bool]:
        """Keep a new job and return it with True, or with False what somebody faster has added."""
        self._serves(job.submitter, job.site)
        kept = self.jobs.store.add(job, partial(_allowed, self.policy.value, job))
        if kept is job:
            self.jobs.told(kept, before=None)
        return kept, kept is job

    def _described(self, kept: Job, message: SubmitJob, digest: str) -> Job:
        """Return the job kept as ``message`` has it: since before, or from now on."""
        now = self.clock.now()
        event = Described(
            at=now,
            request=message.request,
            request_digest=digest,
            expires_at=now + self._queue_time(message),
        )

        def decide(job: Job) -> Job:
            if already(job, event):
                return job
            if job.request_digest or job.site != message.site:
                raise Conflict("job.different_request", job=job.id)
            self._serves(job.submitter, job.site)
            return apply(job, event)

        return self.jobs.change(kept.id, Tenant(submitter=kept.submitter), decide)

    def _queue_time(self, message: SubmitJob) -> timedelta:
        asked = timedelta(seconds=message.queue_s) if message.queue_s else QUEUE_TIME
        return min(asked, self.policy.value.queue_time)

    def _new(self, user: str, message: SubmitJob, digest: str) -> Job:
        draft = self._draft(user, message, self._queue_time(message))
        job = replace(draft, request=message.request, request_digest=digest)
        return job if message.has_inputs else apply(job, InputsComplete(at=job.created_at))

    def _draft(self, user: str, message: SubmitJob | OpenDraft, lasts: timedelta) -> Job:
        now = self.clock.now()
        return Job(
            id=message.id,
            site=message.site,
            submitter=user,
            created_at=now,
            changed_at=now,
            expires_at=now + lasts,
        )

    def _serves(self, user: str, name: str) -> None:
        site = self.sites.site(name)
        if site is None or user not in site.submitters:
            raise NotFound("site.not_found", site=name)
        if site.disabled:
            raise Refused("site.disabled", site=name)


def _allowed(policy: Policy, job: Job, site: Usage, submitter: Usage) -> None:
    for kind, name, held, quota in (
        ("site", job.site, site, policy.site),
        ("submitter", job.submitter, submitter, policy.submitter),
    ):
        if held.live_jobs > quota.live_jobs:
            raise QuotaExceeded("quota.jobs", kind=kind, name=name, limit=quota.live_jobs)
        if held.stored_bytes > quota.stored_bytes:
            raise QuotaExceeded("quota.bytes", kind=kind, name=name, limit=quota.stored_bytes)


def request_digest(user: str, message: SubmitJob) -> str:
    """Return what tells one submission from another with the same job id."""
    text = msgspec.json.encode([user, message])
    return hashlib.sha256(text).hexdigest()


def missing_chunks(job: Job, ledger: JobLedger, blobs: BlobStore) -> int:
    """Return how many of the chunks that ``job`` has declared are not stored."""
    space = space_of(site=job.site, submitter=job.submitter)
    digests = [chunk.digest for chunk in ledger.declared(job.id)]
    parts = (digests[n : n + MAX_DIGESTS] for n in range(0, len(digests), MAX_DIGESTS))
    return sum(len(blobs.missing(space, part)) for part in parts)
