"""The real ASGI application over memory adapters, and clients that call it without a socket."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx2
from starlette.applications import Starlette

from sekisho.domain.access import Role
from sekisho.domain.errors import SyncFailed
from sekisho.http.app import Face, application, table
from sekisho.http.call import Row
from sekisho.http.longpoll import LongPoll
from sekisho.http.threads import Threads
from tests.component.broker_world import World

PREFIX = "/behind/a/proxy"


@dataclass(slots=True)
class HttpWorld:
    """A broker's application; real time for long polls, no sockets."""

    world: World = field(default_factory=World)
    reloads: list[str] = field(default_factory=list)
    failing: list[Exception] = field(default_factory=list)
    fatals: list[SyncFailed] = field(default_factory=list)
    polls: LongPoll = field(init=False)
    app: Starlette = field(init=False)

    def __post_init__(self) -> None:
        ports = self.world.desk.ports
        self.polls = LongPoll(ports.wakeups, ports.clock)
        self.app = application(self.world.desk, self.polls, self.face, None)

    @property
    def face(self) -> Face:
        return Face(
            reload=lambda: self.reloads.append("reload"),
            fatal=self.fatals.append,
            checks={"database": self._check},
            prefix=PREFIX,
        )

    def _check(self) -> None:
        for error in self.failing:
            raise error

    def rows(self) -> list[Row]:
        return table(self.world.desk, self.polls, Threads(), self.face)

    def client(self, token: str | None = None) -> httpx2.AsyncClient:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=self.app),
            base_url="http://broker",
            headers=headers,
        )

    def as_role(self, role: Role, name: str) -> httpx2.AsyncClient:
        return self.client(self.world.token(role, name))


def code_of(response: Any) -> str:
    """Return the code of a problem, after looking at its form."""
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == response.status_code
    assert problem["type"] == f"urn:sekisho:{problem['code']}"
    return str(problem["code"])
