"""Sites and credentials, in a database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
import sqlalchemy.exc

from sekisho.adapters.sql.engine import AnyRow, Database
from sekisho.adapters.sql.tables import sites, tokens
from sekisho.broker.ports import Sighting, Site, Token
from sekisho.domain.access import Principal, Role
from sekisho.domain.errors import Conflict

_TOKEN: Final = tuple(column for column in tokens.c if column.name != "redeemed_for")
_DECIDED: Final = ("submitters", "disabled", "disabled_commands")  #: by an operator

_SITE_EXISTS: Final = sa.or_(
    tokens.c.role.not_in([Role.SITE, Role.INVITATION]),
    sa.exists().where(sites.c.id == tokens.c.name),
)
_VALID: Final = sa.and_(
    tokens.c.revoked_at.is_(None),
    sa.or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > sa.bindparam("now")),
    _SITE_EXISTS,
)
_PRINCIPAL: Final = sa.select(tokens.c.id, tokens.c.role, tokens.c.name).where(
    tokens.c.hash == sa.bindparam("hash"), _VALID
)
_INVITATION: Final = (
    sa.select(tokens.c.redeemed_for, _VALID.label("valid"), tokens.c.name)
    .where(tokens.c.id == sa.bindparam("id"), tokens.c.role == Role.INVITATION)
    .with_for_update(of=tokens)
)
_REDEEM: Final = (
    sa.update(tokens)
    .where(tokens.c.id == sa.bindparam("token"))
    .values(redeemed_for=sa.bindparam("redeemed_for"))
)
_REVOKE: Final = (
    sa.update(tokens)
    .where(tokens.c.role == Role.SITE, tokens.c.name == sa.bindparam("site"))
    .where(tokens.c.revoked_at.is_(None))
    .values(revoked_at=sa.bindparam("revoked_at"))
)
_SITE: Final = sa.select(sites).where(sites.c.id == sa.bindparam("id"))
_SEEN: Final = (
    sa.update(sites)
    .where(sites.c.id == sa.bindparam("site"))
    .values({name: sa.bindparam(name) for name in ("last_seen_at", "agent_version", "instance")})
)


class SqlDirectory:
    """Implements `broker.ports.Directory`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        token = database.insert(tokens)
        self._put_token = token.on_conflict_do_update(
            index_elements=[tokens.c.id],
            set_={c.name: token.excluded[c.name] for c in _TOKEN if not c.primary_key},
        )
        site = database.insert(sites)
        self._put_site = site.on_conflict_do_update(
            index_elements=[sites.c.id], set_={name: site.excluded[name] for name in _DECIDED}
        )

    def principal_for(self, token_hash: str, now: datetime) -> Principal | None:
        with self._database.reading() as tx:
            row = tx.execute(_PRINCIPAL, {"hash": token_hash, "now": now}).first()
        return None if row is None else Principal(token_id=row.id, role=row.role, name=row.name)

    def tokens(self, *, role: Role | None = None) -> list[Token]:
        statement = sa.select(*_TOKEN).order_by(tokens.c.created_at, tokens.c.id)
        if role is not None:
            statement = statement.where(tokens.c.role == role)
        with self._database.reading() as tx:
            return [Token(**row._asdict()) for row in tx.execute(statement)]

    def put_token(self, token: Token) -> None:
        with self._database.writing() as tx:
            self._keep(tx, token)

    def redeem(self, invitation_id: str, token: Token, now: datetime) -> bool:
        with self._database.writing() as tx:
            invitation = tx.execute(_INVITATION, {"id": invitation_id, "now": now}).first()
            if invitation is None:
                return False
            if invitation.redeemed_for is not None:
                return bool(invitation.redeemed_for == token.hash)
            if not (invitation.valid and _invites(invitation, token)):
                return False
            tx.execute(_REVOKE, {"site": token.name, "revoked_at": now})
            self._keep(tx, token)
            tx.execute(_REDEEM, {"token": invitation_id, "redeemed_for": token.hash})
            return True

    def site(self, site_id: str) -> Site | None:
        with self._database.reading() as tx:
            row = tx.execute(_SITE, {"id": site_id}).first()
        return None if row is None else Site(**row._asdict())

    def sites(self) -> list[Site]:
        with self._database.reading() as tx:
            found = [Site(**row._asdict()) for row in tx.execute(sa.select(sites))]
        return sorted(found, key=lambda site: site.id)

    def put_site(self, site: Site) -> None:
        with self._database.writing() as tx:
            tx.execute(self._put_site, asdict(site))

    def seen(self, sightings: Sequence[Sighting]) -> None:
        with self._database.writing() as tx:
            tx.execute(_SEEN, [_sighted(one) for one in sightings])

    def _keep(self, tx: sa.Connection, token: Token) -> None:
        try:
            tx.execute(self._put_token, asdict(token))
        except sqlalchemy.exc.IntegrityError as error:
            raise Conflict("token.exists") from error


def _sighted(one: Sighting) -> dict[str, Any]:
    return {
        "site": one.site,
        "last_seen_at": one.at,
        "agent_version": one.agent_version,
        "instance": one.instance,
    }


def _invites(invitation: AnyRow, token: Token) -> bool:
    return token.role is Role.SITE and bool(invitation.name == token.name)
