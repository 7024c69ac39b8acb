"""What the operator allows: quotas, retention, patience. Replaced as a whole by a reload."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

from sekisho.domain.limits import MAX_QUEUE_TIME

GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What a site, or a submitter, may hold together."""

    live_jobs: int
    stored_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MintSite:
    """What the old MInt paths may do for one site.

    ``commands`` are the operator's: names, each with the exact text that an old agent runs. An
    ``unguarded`` site is served by an old agent, which cannot keep a manifest: this list is all
    that stands before it. Otherwise the site's own manifest decides, and an empty list is no limit.
    """

    commands: Mapping[str, str]
    unguarded: bool
    known_as: str | None = None  #: what old programs call it, if that is another name

    def allows(self, command: str) -> bool:
        if not self.unguarded and not self.commands:
            return True
        return command in self.commands.values()


@dataclass(frozen=True, slots=True, kw_only=True)
class MintPolicy:
    """Whether and for whom the old MInt paths are there."""

    enabled: bool = False
    sites: Mapping[str, MintSite] = field(default_factory=dict)
    queue_time: timedelta = timedelta(minutes=30)
    max_body_bytes: int = 3 * GIB

    def site(self, name: str) -> MintSite | None:
        return self.sites.get(name) if self.enabled else None

    def ours(self, name: str) -> str:
        """Return our name of the site that old programs call ``name``."""
        return next((n for n, site in self.sites.items() if site.known_as == name), name)

    def theirs(self, name: str) -> str:
        """Return what old programs call our site ``name``."""
        site = self.sites.get(name)
        return name if site is None else site.known_as or name

    def unguarded(self, name: str) -> bool:
        """Say whether an old agent may serve the site: no manifest holds there."""
        site = self.site(name)
        return site is not None and site.unguarded


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """A gateway in front that has checked who calls, and says so in a header.

    The header counts only from ``addresses``, as seen at the socket; from anybody else it is as if
    it were not there.
    """

    user_header: str
    addresses: tuple[IPv4Network | IPv6Network, ...]

    def trusts(self, address: str) -> bool:
        try:
            there = ip_address(address)
        except ValueError:
            return False
        return any(there in network for network in self.addresses)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Everything that can change while the broker runs."""

    site: Quota = Quota(live_jobs=10_000, stored_bytes=500 * GIB)
    submitter: Quota = Quota(live_jobs=5_000, stored_bytes=200 * GIB)
    job_bytes: int = 100 * GIB
    free_floor_bytes: int = GIB
    queue_time: timedelta = MAX_QUEUE_TIME  #: the longest that a submitter may ask for
    keep_received: timedelta = timedelta(days=7)
    keep_unreceived: timedelta = timedelta(days=60)
    unreachable_after: timedelta = timedelta(minutes=10)
    mint: MintPolicy = field(default_factory=MintPolicy)
    gateway: Gateway | None = None


@dataclass(slots=True)
class CurrentPolicy:
    """The policy that holds now; services look at it anew for every decision."""

    value: Policy = field(default_factory=Policy)
