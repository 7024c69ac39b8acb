"""The lane to a site in push mode, put together."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial

from sekisho.adapters.hosts.ssh import SshAddress, SshHost
from sekisho.adapters.job_notes import JobNotes
from sekisho.adapters.lane_push import PushLane, PushSite
from sekisho.adapters.patience import Patience
from sekisho.client.client import Line
from sekisho.config.client import ClientFiles, SshSite
from sekisho.domain.errors import ConfigError
from sekisho.transfer.progress import Progress, unseen


def push_lane(
    name: str,
    files: ClientFiles,
    notes: JobNotes,
    patience: Patience,
    on_bring: Progress = unseen,
) -> Line:
    """Return the lane to the site ``name`` of the settings. Nothing is connected yet."""
    site = files.settings.site[name]
    if not site.host and not site.before:
        raise ConfigError("client.no_host", site=name)
    if not site.before:  # else the host may just be starting
        patience = replace(patience, first_s=site.first_contact_s)

    def lane_at(host: str) -> Line:
        way = ssh_host(site, files, host)
        if site.kind == "bare":
            from sekisho.adapters.hosts.bare import BareHost  # noqa: PLC0415
            from sekisho.adapters.lane_bare import BareLane  # noqa: PLC0415
            from sekisho.compose.bare import bare_site  # noqa: PLC0415

            there = BareHost(way, site.place)
            return BareLane(bare_site(name, site), there, notes, patience, on_bring)
        from sekisho.adapters.lane_gate import KNOCK, GateLane  # noqa: PLC0415

        return GateLane(name, partial(way.session, KNOCK), patience)

    here = PushSite(
        name=name,
        host=site.host,
        before=tuple(site.before),
        after=tuple(site.after),
        hook_s=site.hook_s,
        hooks_in=files.file.parent,
        drafts=lambda: _drafts(site) and ssh_host(site, files, site.host).connected(),
    )
    return PushLane(here, notes, lane_at, patience)


def _drafts(site: SshSite) -> bool:
    return site.kind == "gated" and not (site.before or site.after)


def ssh_host(site: SshSite, files: ClientFiles, host: str) -> SshHost:
    """Return the way to ``host`` as the settings of ``site`` have it."""
    return SshHost(
        SshAddress(
            host=host,
            config_file=files.ssh_config(site),
            persist_s=site.persist_s,
            logins_per_minute=site.logins_per_minute,
            interactive=sys.stdin.isatty() and sys.stderr.isatty(),
        )
    )
