"""Sites: adding them, taking them or their commands out of service, and how they are seen."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

import structlog

from sekisho.broker.jobs import HELD, WAITING, Jobs, site_topic
from sekisho.broker.policy import CurrentPolicy
from sekisho.broker.ports import JobFilter, Site, Sites, Tenant
from sekisho.domain.clock import Clock
from sekisho.domain.errors import Conflict, NotFound
from sekisho.domain.ids import check_command, check_site, check_user
from sekisho.domain.job import DeclaredLost, Job
from sekisho.wire.v1 import SiteView

#: A site that polls is seen at least this often: a poll, the time between writes, and some slack.
CONNECTED_FOR: Final = timedelta(seconds=90)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SiteOffice:
    """The broker's register of sites, and the operator's hand on their jobs."""

    sites: Sites
    jobs: Jobs
    clock: Clock
    policy: CurrentPolicy = field(default_factory=CurrentPolicy)

    def get(self, name: str) -> Site:
        """Return the site or raise NotFound."""
        site = self.sites.site(name)
        if site is None:
            raise NotFound("site.not_found", site=name)
        return site

    def add(self, name: str, users: frozenset[str]) -> Site:
        """Add a site that serves ``users``; raise Conflict when it exists."""
        for user in users:
            check_user(user)
        if self.sites.site(check_site(name)) is not None:
            raise Conflict("site.exists", site=name)
        site = Site(id=name, submitters=users, created_at=self.clock.now())
        self.sites.put_site(site)
        log.info("site_added", site=name, submitters=sorted(users))
        return site

    def serve(self, name: str, users: frozenset[str]) -> Site:
        """Replace the submitters that the broker lets through to the site."""
        for user in users:
            check_user(user)
        site = replace(self.get(name), submitters=users)
        self.sites.put_site(site)
        log.info("site_submitters_changed", site=name, submitters=sorted(users))
        return site

    def switch(self, name: str, *, disabled: bool, command: str | None = None) -> Site:
        """Take the site, or one command of it, out of service at once, or put it back."""
        site = self.get(name)
        if command is None:
            site = replace(site, disabled=disabled)
        else:
            named = frozenset({check_command(command)})
            before = site.disabled_commands
            site = replace(site, disabled_commands=before | named if disabled else before - named)
        self.sites.put_site(site)
        log.info("site_switched", site=name, command=command, disabled=disabled)
        self.jobs.wakeups.notify(site_topic(name))
        return site

    def connected(self, site: Site) -> bool:
        """Say whether an agent of the site polls."""
        seen = site.last_seen_at
        return seen is not None and self.clock.now() - seen <= CONNECTED_FOR

    def serving(self, user: str) -> list[SiteView]:
        """Return the sites that serve ``user``, as this user may see them."""
        return [self._view(site, user) for site in self.sites.sites() if user in site.submitters]

    def lost(self, job_id: str, by: str) -> Job:
        """Declare a job that a site holds lost, in the name of the person ``by``.

        The site's own word, should it come after all, is then too late: it gets a Conflict.
        """
        check_user(by)
        tenant, now = Tenant(), self.clock.now()
        job = self.jobs.get(job_id, tenant)
        event = DeclaredLost(
            at=now, epoch=job.epoch, instance=job.instance or "", result=b"", by=by
        )
        job = self.jobs.happened(job_id, tenant, event)
        log.warning("job_declared_lost", job=job.id, epoch=job.epoch, site=job.site, by=by)
        return job

    def _view(self, site: Site, user: str) -> SiteView:
        waiting = JobFilter(site=site.id, submitter=user, states=WAITING)
        active = JobFilter(site=site.id, submitter=user, states=HELD)
        return SiteView(
            id=site.id,
            connected=self.connected(site),
            last_seen_at=site.last_seen_at,
            disabled=site.disabled,
            disabled_commands=sorted(site.disabled_commands),
            waiting=sum(1 for _ in self.jobs.every(waiting)),
            active=sum(1 for _ in self.jobs.every(active)),
            agent_version=site.agent_version,
            unguarded=self.policy.value.mint.unguarded(site.id),
        )
