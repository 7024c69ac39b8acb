"""The broker's ASGI application: the route table made into endpoints, with and without a prefix."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from sekisho.broker.desk import Desk
from sekisho.domain.errors import SyncFailed
from sekisho.http.admin_calls import AdminCalls
from sekisho.http.call import Row
from sekisho.http.chunk_calls import ChunkCalls, by_site, by_submitter
from sekisho.http.early_calls import EarlyCalls
from sekisho.http.endpoint import Context, Endpoint
from sekisho.http.gate import Gate
from sekisho.http.longpoll import LongPoll
from sekisho.http.mint import MintEndpoint
from sekisho.http.mint_calls import MintCalls
from sekisho.http.open_calls import OpenCalls
from sekisho.http.problem import plain_problem
from sekisho.http.routes import Calls, routes
from sekisho.http.site_calls import SiteCalls
from sekisho.http.submitter_calls import SubmitterCalls
from sekisho.http.threads import Threads

Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """What the HTTP face needs beside the services.

    ``prefix`` is the path below which a reverse proxy shows the broker: requests are understood
    with it and without it. ``checks`` raise when the broker is not fit for work.
    """

    reload: Callable[[], None]
    fatal: Callable[[SyncFailed], None]
    checks: Mapping[str, Callable[[], None]]
    prefix: str = ""


def table(desk: Desk, polls: LongPoll, threads: Threads, face: Face) -> list[Row]:
    """Return the route table over ``desk``."""
    started_at = desk.ports.clock.now()
    return routes(
        Calls(
            submitter=SubmitterCalls(desk, polls, threads),
            inputs=ChunkCalls(desk, threads, by_submitter),
            site=SiteCalls(desk, polls, threads),
            early=EarlyCalls(desk, polls, threads),
            outputs=ChunkCalls(desk, threads, by_site),
            admin=AdminCalls(desk, started_at, face.reload),
            open=OpenCalls(desk, polls, face.checks),
        )
    )


def application(desk: Desk, polls: LongPoll, face: Face, lifespan: Lifespan | None) -> Starlette:
    """Return the ASGI application."""
    threads = Threads(at_hand=desk.ports.store.at_hand)
    clock = desk.ports.clock
    context = Context(
        gate=Gate(desk.tokens, clock, threads, desk.policy),
        threads=threads,
        meter=desk.meter,
        clock=clock,
        fatal=face.fatal,
    )
    rows = table(desk, polls, threads, face)
    app = Starlette(
        routes=[*_endpoints("", rows, context)],
        lifespan=lifespan,
        exception_handlers={404: _unknown_path},
    )
    if face.prefix:
        app.router.routes += _endpoints(face.prefix, rows, context)
    app.router.routes += _mint(face.prefix, MintCalls(desk, context, face.reload))
    app.router.redirect_slashes = False
    return app


def _endpoints(prefix: str, rows: Sequence[Row], context: Context) -> list[BaseRoute]:
    by_path: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_path.setdefault(row.path, {})[row.method] = row
    return [Route(prefix + path, Endpoint(methods, context)) for path, methods in by_path.items()]


def _mint(prefix: str, calls: MintCalls) -> list[BaseRoute]:
    endpoints = [(row.path, MintEndpoint(row, calls)) for row in calls.rows()]
    return [Route(at + path, end) for at in {"", prefix} for path, end in endpoints]


async def _unknown_path(_: Request, __: Any) -> Response:
    return plain_problem(404, "http.path")
