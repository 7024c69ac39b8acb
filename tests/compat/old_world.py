"""A broker in this process, with a clock that tests move, to which old programs speak."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx2
from anyio.from_thread import BlockingPortal, start_blocking_portal
from starlette.applications import Starlette

from sekisho.broker.policy import MintPolicy, MintSite
from sekisho.domain.access import Role
from tests.compat.old_programs import LISTED, OldAgent, OldWorkflow
from tests.integration.http_world import HttpWorld

SITES = {
    "old-site": MintSite(commands={"solve": LISTED}, unguarded=True),
    "new-site": MintSite(commands={}, unguarded=False),
}


class InProcess(httpx2.BaseTransport):
    """Carries requests to an application in an event loop of its own."""

    def __init__(self, app: Starlette, portal: BlockingPortal, address: str) -> None:
        self._app, self._portal, self._address = app, portal, address

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        answer: httpx2.Response = self._portal.call(self._carry, request)
        return answer

    async def _carry(self, request: httpx2.Request) -> httpx2.Response:
        way = httpx2.ASGITransport(app=self._app, client=(self._address, 1234))
        async with way:
            given = httpx2.Request(
                request.method, request.url, headers=request.headers, content=request.content
            )
            answer = await way.handle_async_request(given)
            body = await answer.aread()
        return httpx2.Response(answer.status_code, headers=answer.headers, content=body)


@dataclass(slots=True)
class OldWorld:
    """The broker, and lines to it for whoever is named."""

    http: HttpWorld
    portal: BlockingPortal
    lines: ExitStack
    tokens: dict[str, str] = field(default_factory=dict)

    def token(self, who: str) -> str:
        """Return the token of ``who``: `alice`, `alice 2` for a second one, `site:old-site`."""
        if who not in self.tokens:
            role, _, name = who.rpartition(":")
            kind = Role(role) if role else Role.SUBMITTER
            self.tokens[who] = self.http.world.token(kind, name.split()[0])
        return self.tokens[who]

    def line(self, who: str = "alice", address: str = "192.0.2.1") -> httpx2.Client:
        way = InProcess(self.http.app, self.portal, address)
        headers = {"Authorization": f"Bearer {self.token(who)}"}
        base = "http://broker/mi-distcomp-api/"
        return self.lines.enter_context(
            httpx2.Client(transport=way, base_url=base, headers=headers)
        )

    def workflow(self, who: str = "alice") -> OldWorkflow:
        return OldWorkflow(self.line(who))

    def agent(self, who: str = "alice", address: str = "192.0.2.1") -> OldAgent:
        return OldAgent(self.line(who, address), Path("nowhere"))


@contextmanager
def old_world() -> Iterator[OldWorld]:
    """Give a broker in memory whose old paths are open, for alice and bob."""
    http = HttpWorld()
    for site in SITES:
        http.world.desk.sites.add(site, frozenset({"alice", "bob"}))
    policy = http.world.policy
    policy.value = replace(policy.value, mint=MintPolicy(enabled=True, sites=SITES))
    with start_blocking_portal() as portal, ExitStack() as lines:
        yield OldWorld(http, portal, lines)
