"""Who calls, and whether they may: before anything else of a request is looked at.

Identity comes from the credential only. Whatever is wrong with a credential, the answer is the same
and costs the same look-up.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import structlog
from starlette.requests import Request

from sekisho.broker.policy import CurrentPolicy
from sekisho.broker.tokens import TokenOffice
from sekisho.domain.access import Principal, Role, Scope
from sekisho.domain.clock import Clock
from sekisho.domain.errors import Refused, Unauthenticated
from sekisho.domain.ids import USER_PATTERN
from sekisho.http.threads import Threads

log = structlog.get_logger()


@dataclass(slots=True)
class Gate:
    """Lets a request in when its token has the scope that the route names."""

    tokens: TokenOffice
    clock: Clock
    threads: Threads
    policy: CurrentPolicy = field(default_factory=CurrentPolicy)
    _logged_at: float | None = None
    _unlogged: int = 0

    async def admit(self, request: Request, scope: Scope) -> Principal | None:
        """Return the caller; None for an open route. Raise Unauthenticated or Refused."""
        if scope is Scope.OPEN:
            return None
        principal = await self.identify(request)
        if scope not in principal.scopes:
            raise Refused("auth.scope", scope=scope.value)
        return principal

    async def identify(self, request: Request) -> Principal:
        """Return whose credential the request has; raise Unauthenticated.

        A gateway that is trusted speaks for a submitter, and for nobody else.
        """
        if (user := self._announced(request)) is not None:
            return Principal(token_id=f"gateway:{user}", role=Role.SUBMITTER, name=user)
        text = _credential(request)
        try:
            return await self.threads.look(self.tokens.authenticate, text)
        except Unauthenticated:
            self._note(request)
            raise

    def _announced(self, request: Request) -> str | None:
        gateway, client = self.policy.value.gateway, request.client
        if gateway is None or client is None or not gateway.trusts(client.host):
            return None
        given = request.headers.getlist(gateway.user_header)
        if not given:
            return None
        if len(given) != 1 or re.fullmatch(USER_PATTERN, given[0]) is None:
            self._note(request)
            raise Unauthenticated
        return given[0]

    def _note(self, request: Request) -> None:
        """Log a refusal; at most one line a second, with the number of those left out."""
        now = self.clock.monotonic()
        if self._logged_at is not None and now - self._logged_at < 1.0:
            self._unlogged += 1
            return
        address = request.client.host if request.client else None
        log.warning("credential_refused", address=address, unlogged=self._unlogged)
        self._logged_at, self._unlogged = now, 0


def _credential(request: Request) -> str:
    given = request.headers.getlist("authorization")
    scheme, _, text = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    return text.strip() if scheme.lower() == "bearer" else ""
