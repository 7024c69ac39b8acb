"""A directory that writes down who polled some seconds later: many sightings for one commit.

Whoever asks this directory sees them at once; another process after `flush`. A crash loses the
last ones, which tell nothing but the time of a poll.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from sekisho.broker.ports import Directory, Sighting, Site, Token
from sekisho.domain.access import Principal, Role


class DeferredDirectory:
    """Implements `broker.ports.Directory` over ``inner``."""

    def __init__(self, inner: Directory) -> None:
        self._inner = inner
        self._turn = threading.Lock()
        self._seen: dict[str, Sighting] = {}

    def seen(self, sightings: Sequence[Sighting]) -> None:
        self._seen |= {one.site: one for one in sightings}

    def flush(self) -> None:
        """Write down what is not written yet, in one transaction."""
        with self._turn:
            written = dict(self._seen)
            if not written:
                return
            self._inner.seen(list(written.values()))
            for site, one in written.items():
                if self._seen.get(site) is one:
                    del self._seen[site]

    def site(self, site_id: str) -> Site | None:
        one = self._seen.get(site_id)  # before the look, so that a flush in between hides nothing
        site = self._inner.site(site_id)
        return _with(site, one) if site and one else site

    def sites(self) -> list[Site]:
        seen = dict(self._seen)
        found = self._inner.sites()
        return [_with(site, seen[site.id]) if site.id in seen else site for site in found]

    def put_site(self, site: Site) -> None:
        self._inner.put_site(site)

    def principal_for(self, token_hash: str, now: datetime) -> Principal | None:
        return self._inner.principal_for(token_hash, now)

    def tokens(self, *, role: Role | None = None) -> list[Token]:
        return self._inner.tokens(role=role)

    def put_token(self, token: Token) -> None:
        self._inner.put_token(token)

    def redeem(self, invitation_id: str, token: Token, now: datetime) -> bool:
        return self._inner.redeem(invitation_id, token, now)


def _with(site: Site, one: Sighting) -> Site:
    return replace(
        site, last_seen_at=one.at, agent_version=one.agent_version, instance=one.instance
    )
