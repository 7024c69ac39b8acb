"""What time does to jobs: offers and queues run out, silent agents are flagged, old ends forgotten.

Level-triggered: each pass looks at what is there and takes idempotent steps, so a pass that was cut
short is simply made again. No step moves a job that a site has accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import groupby, islice
from operator import itemgetter
from typing import Final

import structlog

from sekisho.broker.heard import Heard
from sekisho.broker.jobs import HELD, Jobs
from sekisho.broker.policy import CurrentPolicy
from sekisho.broker.ports import EVERYONE, BlobStore, JobFilter, Retention, Site, Sites
from sekisho.domain.clock import Clock
from sekisho.domain.errors import Conflict, SekishoError, SyncFailed
from sekisho.domain.job import Attention, Expired, Job, JobState, OfferExpired, apply
from sekisho.domain.limits import DRAFT_TIME

PASS_SECONDS: Final = 5.0
_COLLECT_SECONDS: Final = 3600.0
_ORPHANS_SECONDS: Final = 60.0
_AGENTS_SECONDS: Final = 60.0
_BATCH: Final = 500
#: A chunk younger than this is not collected, whatever the pins say.
GRACE: Final = timedelta(hours=24)

log = structlog.get_logger()


@dataclass(slots=True)
class Reaper:
    """The broker's own clock work. Call `tick` every few seconds, from one thread at a time."""

    jobs: Jobs
    retention: Retention
    blobs: BlobStore
    sites: Sites
    policy: CurrentPolicy
    clock: Clock
    orphans: Callable[[], object]  #: flags jobs that nobody may tell of any more
    heard: Heard
    _silent: dict[str, bool] = field(default_factory=dict)  #: by site, as of the last pass
    _due: dict[str, float] = field(default_factory=dict)  #: when a seldom step is made again
    _begun: datetime = field(init=False)

    def __post_init__(self) -> None:
        self._begun = self.clock.now()

    def tick(self) -> None:
        """Make one pass. A step that fails is logged and made again next time."""
        for step in (self.expire, self.flag, self.forget):
            _attempt(step)
        for name, seconds, seldom in (
            ("agents", _AGENTS_SECONDS, self.flag_agents),
            ("orphans", _ORPHANS_SECONDS, self.orphans),
            ("collect", _COLLECT_SECONDS, self.collect),
        ):
            if self._is_due(name, seconds):
                _attempt(seldom)

    def expire(self) -> None:
        """End what has waited too long; take back offers that nobody accepted."""
        now = self.clock.now()
        for job in self.jobs.store.due(now, limit=_BATCH):
            self.jobs.change(job.id, EVERYONE, lambda job: _expired(job, now))

    def flag(self) -> None:
        """Flag the jobs that a silent site holds; take the flag away when it is heard again."""
        now = self.clock.now()
        for site in self.sites.sites():
            silent = self._is_silent(site, now)
            if silent or self._silent.get(site.id, True):
                self._flag(site.id, now, silent=silent)
            self._silent[site.id] = silent

    def flag_agents(self) -> None:
        """Do the same for the agents of sites that others speak for."""
        now = self.clock.now()
        for site in self.sites.sites():
            if not self._is_silent(site, now):
                self._flag(site.id, now, silent=False)
        self.heard.forget(now - self.policy.value.unreachable_after)

    def forget(self) -> None:
        """Forget ended jobs that are past their retention."""
        now, policy = self.clock.now(), self.policy.value
        jobs = self.retention.purgeable(
            received_before=now - policy.keep_received,
            ended_before=now - policy.keep_unreceived,
            limit=_BATCH,
        )
        for job in jobs:
            self.retention.purge(job.id)
            log.info("job_forgotten", job=job.id, epoch=job.epoch, site=job.site)

    def collect(self) -> int:
        """Delete chunks that no job needs; return how many. A listing error ends it at once."""
        old = self.blobs.older(self.clock.now() - GRACE)
        deleted = 0
        while batch := list(islice(old, _BATCH)):
            for space, group in groupby(sorted(batch), key=itemgetter(0)):
                digests = [digest for _, digest in group]
                deleted += len(self.retention.unpinned(space, digests, self.blobs))
        if deleted:
            log.info("chunks_collected", count=deleted)
        return deleted

    def _is_due(self, name: str, seconds: float) -> bool:
        now = self.clock.monotonic()
        if now < self._due.get(name, now):
            return False
        self._due[name] = now + seconds
        return True

    def _is_silent(self, site: Site, now: datetime) -> bool:
        seen = site.last_seen_at or site.created_at
        return now - seen > self.policy.value.unreachable_after

    def _flag(self, site: str, now: datetime, *, silent: bool) -> None:
        flag, after = Attention.SITE_UNREACHABLE, self.policy.value.unreachable_after
        for job in self._held(site):
            last = self.heard.last(site, job.instance or "")
            if silent or now - (last or self._begun) > after:
                if job.attention is None:
                    self._set(job.id, before=None, after=flag)
            elif last is not None and job.attention is flag:
                self._set(job.id, before=flag, after=None)

    def _held(self, site: str) -> Iterable[Job]:
        return self.jobs.every(JobFilter(site=site, states=HELD))

    def _set(self, job_id: str, *, before: Attention | None, after: Attention | None) -> None:
        def decide(job: Job) -> Job:
            if job.state not in HELD or job.attention is not before:
                return job
            return replace(job, attention=after, version=job.version + 1)

        job = self.jobs.change(job_id, EVERYONE, decide)
        log.info(
            "attention_changed", job=job.id, epoch=job.epoch, site=job.site, attention=job.attention
        )


def _expired(job: Job, now: datetime) -> Job:
    """Return what time has made of the job by now; the job itself when somebody was faster."""
    if job.state is JobState.OFFERED and job.offer_until is not None and job.offer_until <= now:
        return apply(job, OfferExpired(at=now))
    if job.state is JobState.QUEUED and job.expires_at <= now:
        return apply(job, Expired(at=now))
    if job.state is JobState.DRAFT and min(job.expires_at, job.created_at + DRAFT_TIME) <= now:
        return apply(job, Expired(at=now))
    return job


def _attempt(step: Callable[[], object]) -> None:
    try:
        step()
    except SyncFailed:
        raise
    except Conflict as error:  # somebody was faster; the next pass looks again
        log.debug("reaper_step_overtaken", code=error.code)
    except SekishoError as error:
        log.error("reaper_step_failed", code=error.code, params=error.params)  # noqa: TRY400
