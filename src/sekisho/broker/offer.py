"""What a site's agents do with jobs: take offers, report steps, and say the last word.

Everything an agent says of a job carries epoch and instance; an offer that it does not hold any
more is a StaleEpoch and changes nothing. What was said before is answered the same (P3, P4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Literal

from sekisho.broker.arriving import Arriving
from sekisho.broker.heard import Heard
from sekisho.broker.jobs import WAITING, Jobs, course_of
from sekisho.broker.outstanding import Outstanding
from sekisho.broker.ports import (
    BlobStore,
    JobFilter,
    JobLedger,
    Sighting,
    Site,
    Sites,
    Tenant,
)
from sekisho.broker.submit import missing_chunks
from sekisho.domain.clock import Clock
from sekisho.domain.errors import Conflict, NotFound
from sekisho.domain.job import (
    Accepted,
    DeclaredLost,
    Ended,
    Failed,
    Job,
    JobState,
    OfferExpired,
    Refused,
    Returned,
    SiteEvent,
    SiteVerdict,
    Started,
    Stopped,
    apply,
)
from sekisho.domain.limits import MAX_COMING, MAX_MESSAGE_BYTES, OFFER_TIME
from sekisho.wire.v1 import Accept, Coming, Held, Offer, Poll, PollAnswer, Report, Verdict

SEEN_EVERY: Final = timedelta(seconds=30)
_MAX_OFFERS: Final = 64
_MAX_HOLDS: Final = 1024


@dataclass(frozen=True, slots=True)
class Offers:
    """The site's side of the broker."""

    jobs: Jobs
    ledger: JobLedger
    blobs: BlobStore
    sites: Sites
    clock: Clock
    outstanding: Outstanding = field(default_factory=Outstanding)
    arriving: Arriving = field(default_factory=Arriving)
    heard: Heard = field(default_factory=Heard)

    def seen(self, name: str, message: Poll) -> Site:
        """Note that an agent polls, and return its site."""
        site, now = self._site(name), self.clock.now()
        self.heard.hear(name, message.instance, now)
        known = (site.instance, site.agent_version) == (message.instance, message.agent_version)
        if not known or site.last_seen_at is None or now - site.last_seen_at >= SEEN_EVERY:
            version, instance = message.agent_version, message.instance
            sighting = Sighting(site=name, at=now, agent_version=version, instance=instance)
            self.sites.seen([sighting])
        return site

    def look(self, name: str, message: Poll) -> PollAnswer:
        """Return at most ``free`` offers, the cancels among ``holds``, and what is disabled.

        A disabled site is offered nothing; jobs that it holds go on. Who takes offers, and asks for
        it, hears of drafts that are being sent, and which of those it heard of before are gone.
        """
        site = self._site(name)
        self._take_back(site.id, message)
        free = 0 if site.disabled else min(message.free, _MAX_OFFERS)
        return PollAnswer(
            offers=list(self._offers(site.id, message.instance, free)),
            cancel=self._cancels(site.id, message),
            disabled_commands=sorted(site.disabled_commands),
            coming=list(self._coming(site.id, message)) if free else [],
            gone=self._gone(site.id, message),
        )

    def accept(self, site: str, job_id: str, message: Accept) -> Job:
        """Give the job to the instance that was offered it, for good (sticky accept)."""
        event = _said(Accepted, message, self.clock.now())
        job = self.jobs.happened(job_id, Tenant(site=site), event)
        self.outstanding.accepted(site, message.instance, job_id)
        return job

    def report(self, site: str, job_id: str, message: Report) -> Job:
        """Take note of the steps, in their order; those known are skipped."""
        steps = _steps(message, message.steps, self.clock.now())
        return self.jobs.happened(job_id, Tenant(site=site), *steps)

    def verdict(self, site: str, job_id: str, message: Verdict) -> Job:
        """End the job with its site's last word, keyed by (job, epoch, tree).

        A returned job needs all its chunks stored. Another verdict than the one kept is a Conflict.
        """
        now = self.clock.now()
        steps, last = _steps(message, message.steps, now), _event(site, message, now)

        def decide(job: Job) -> list[Job]:
            course = course_of(job, [last] if job.state.terminal else [*steps, last])
            if course and isinstance(last, Returned):
                self._complete(job)
            return course

        return self.jobs.move(job_id, Tenant(site=site), decide)

    def _site(self, name: str) -> Site:
        site = self.sites.site(name)
        if site is None:
            raise NotFound("site.not_found", site=name)
        return site

    def _offers(self, site: str, instance: str, free: int) -> Iterator[Offer]:
        size = 0
        while free > 0 and size < MAX_MESSAGE_BYTES:
            now = self.clock.now()
            until = now + OFFER_TIME
            job = self.jobs.store.offer_next(site, instance, now=now, until=until)
            if job is None:
                return
            self.outstanding.made(site, instance, job.id, job.epoch)
            self.jobs.told(job, before=None)
            free, size = free - 1, size + len(job.request)
            yield Offer(
                job=job.id,
                epoch=job.epoch,
                submitter=job.submitter,
                request=job.request,
                accept_s=OFFER_TIME.total_seconds(),
            )

    def _take_back(self, site: str, message: Poll) -> None:
        """Let offers that did not reach their agent be made anew, without running out first."""
        instance, now = message.instance, self.clock.now()
        for job_id, epoch in self.outstanding.unheard(site, instance, message.holds):
            with suppress(NotFound):
                unheard = partial(_unheard, held=(epoch, instance), at=now)
                self.jobs.change(job_id, Tenant(site=site), unheard)

    def _cancels(self, site: str, message: Poll) -> list[str]:
        heard = set(message.cancelling)
        asked = frozenset(message.holds[:_MAX_HOLDS]) - heard
        if not asked:
            return []
        which = JobFilter(site=site, ids=asked, cancelling=True)
        found = self.jobs.store.page(which, after=None, limit=len(asked))
        return [job.id for job in found if not job.state.terminal]

    def _coming(self, site: str, message: Poll) -> Iterator[Coming]:
        if message.coming is None:
            return
        left, size = MAX_COMING - len(message.coming), 0
        for job_id in self.arriving.of(site, message.instance, heard=message.coming):
            if left <= 0 or size >= MAX_MESSAGE_BYTES:
                return
            job = self._waiting(site, job_id)
            if job is None or job.state is not JobState.DRAFT:
                self.arriving.over(job_id)
                continue
            self.arriving.told(job.id, message.instance)
            left, size = left - 1, size + len(job.request)
            yield Coming(job=job.id, submitter=job.submitter, request=job.request)

    def _gone(self, site: str, message: Poll) -> list[str]:
        heard = (message.coming or [])[:MAX_COMING]
        return [job_id for job_id in heard if self._waiting(site, job_id) is None]

    def _waiting(self, site: str, job_id: str) -> Job | None:
        """Return a job of ``site`` that no agent has taken; None when there is none."""
        with suppress(NotFound):
            job = self.jobs.get(job_id, Tenant(site=site))
            return job if job.state in WAITING else None
        return None

    def _complete(self, job: Job) -> None:
        if missing := missing_chunks(job, self.ledger, self.blobs):
            raise Conflict("job.outputs_missing", job=job.id, count=missing)


def _unheard(job: Job, held: tuple[int, str], at: datetime) -> Job:
    still = job.state is JobState.OFFERED and (job.epoch, job.instance) == held
    return apply(job, OfferExpired(at=at)) if still else job


_STEPS: Final[dict[str, type[SiteEvent]]] = {"started": Started, "ended": Ended}
_VERDICTS: Final[dict[str, type[SiteVerdict]]] = {
    "unable": Failed,
    "refused": Refused,
    "cancelled": Stopped,
}


def _said(kind: type[SiteEvent], message: Held, now: datetime) -> SiteEvent:
    return kind(at=now, epoch=message.epoch, instance=message.instance)


def _steps(
    message: Held, steps: Sequence[Literal["started", "ended"]], now: datetime
) -> list[SiteEvent]:
    return [_said(_STEPS[step], message, now) for step in steps]


def _event(site: str, message: Verdict, now: datetime) -> SiteVerdict:
    """Return the event that a verdict tells of."""
    kind: Callable[..., SiteVerdict]
    if message.verdict in ("succeeded", "failed"):
        kind = partial(Returned, ok=message.verdict == "succeeded")
    elif message.verdict == "lost":
        kind = partial(DeclaredLost, by=site)
    else:
        kind = _VERDICTS[message.verdict]
    return kind(
        at=now,
        epoch=message.epoch,
        instance=message.instance,
        result=message.result,
        tree=message.tree,
    )
