"""Credentials: making, listing, revoking, and the one-time invitation with which a site joins.

A secret is shown once, to whoever made it; the broker keeps its hash.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import structlog

from sekisho.broker.ports import Credentials, Sites, Token
from sekisho.domain import ids
from sekisho.domain.access import Principal, Role
from sekisho.domain.clock import Clock
from sekisho.domain.errors import NotFound, Unauthenticated, UsageError
from sekisho.domain.token import ENTROPY_BYTES, Secret, hash_token, make_token
from sekisho.wire.v1 import Joined, JoinSite

INVITATION_TIME: Final = timedelta(hours=24)
MAX_INVITATION_TIME: Final = timedelta(days=7)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class TokenOffice:
    """Everything about credentials."""

    credentials: Credentials
    sites: Sites
    clock: Clock

    def authenticate(self, text: str) -> Principal:
        """Return whom ``text`` belongs to now, or raise Unauthenticated.

        One indexed look-up for each request, whatever the text: a revocation holds at once, and
        a wrong guess takes as long as a right one.
        """
        principal = self.credentials.principal_for(hash_token(text), self.clock.now())
        if principal is None:
            raise Unauthenticated
        return principal

    def create(
        self, role: Role, name: str, *, lasts: timedelta | None = None, note: str = ""
    ) -> tuple[Token, Secret]:
        """Make a token of a person or a program. Sites get theirs by joining."""
        if role in (Role.SITE, Role.INVITATION):
            raise UsageError("token.role", role=role.value)
        return self._make(role, ids.check_user(name), lasts=lasts, note=note)

    def invite(self, site: str, *, lasts: timedelta = INVITATION_TIME) -> tuple[Token, Secret]:
        """Make a one-time invitation with which the site ``site`` can join."""
        if self.sites.site(site) is None:
            raise NotFound("site.not_found", site=site)
        if not timedelta(0) < lasts <= MAX_INVITATION_TIME:
            raise UsageError("token.lifetime", limit=MAX_INVITATION_TIME.days)
        return self._make(Role.INVITATION, site, lasts=lasts, note="")

    def rotate(self, site: str) -> tuple[Token, Secret]:
        """Shut the site's agents and open invitations out at once, and invite it afresh."""
        for token in self.tokens():
            if token.role in (Role.SITE, Role.INVITATION) and token.name == site:
                self.revoke(token.id)
        return self.invite(site)

    def join(self, principal: Principal, message: JoinSite) -> Joined:
        """Use the caller's invitation up: from now on the site's own token is its credential."""
        now = self.clock.now()
        token = self._token(Role.SITE, principal.name, message.token_hash, note=message.instance)
        if not self.credentials.redeem(principal.token_id, token, now):
            log.warning("invitation_reused", site=principal.name, token=principal.token_id)
            raise Unauthenticated
        site = self.sites.site(principal.name)
        if site is None:
            raise Unauthenticated
        log.info("site_joined", site=site.id, token=token.id)
        return Joined(site=site.id, submitters=sorted(site.submitters))

    def tokens(self, *, role: Role | None = None) -> list[Token]:
        return self.credentials.tokens(role=role)

    def revoke(self, token_id: str) -> Token:
        """Make the token worthless from now on. Idempotent."""
        token = next((t for t in self.tokens() if t.id == token_id), None)
        if token is None:
            raise NotFound("token.not_found", token=token_id[:80])
        if token.revoked_at is None:
            token = replace(token, revoked_at=self.clock.now())
            self.credentials.put_token(token)
            log.info("token_revoked", token=token.id, role=token.role.value, name=token.name)
        return token

    def _make(
        self, role: Role, name: str, *, lasts: timedelta | None, note: str
    ) -> tuple[Token, Secret]:
        secret = make_token(role, secrets.token_bytes(ENTROPY_BYTES))
        token = self._token(role, name, hash_token(secret.reveal()), lasts=lasts, note=note)
        self.credentials.put_token(token)
        log.info("token_created", token=token.id, role=role.value, name=name)
        return token, secret

    def _token(
        self, role: Role, name: str, digest: str, *, lasts: timedelta | None = None, note: str = ""
    ) -> Token:
        now: datetime = self.clock.now()
        entropy = secrets.token_bytes(ids.ENTROPY_BYTES)
        return Token(
            id=ids.make_id("tok", at_ms=int(now.timestamp() * 1000), entropy=entropy),
            hash=digest,
            role=role,
            name=name,
            created_at=now,
            expires_at=None if lasts is None else now + lasts,
            note=note,
        )
