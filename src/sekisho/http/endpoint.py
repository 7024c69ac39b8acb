"""One path: choose the row, pass the gate, decode, run, encode. No business rule lives here.

Order: method, credential and scope, query, body. So nobody without the right token makes the broker
read a body, and every refusal looks the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from sekisho.broker.meter import Meter
from sekisho.domain.clock import Clock
from sekisho.domain.errors import SekishoError, SyncFailed
from sekisho.domain.limits import MAX_MESSAGE_BYTES, MIB
from sekisho.http.body import converted, decoded, whole
from sekisho.http.call import Anything, Call, Chunks, Created, Digests, Frames, Row, Stream
from sekisho.http.gate import Gate
from sekisho.http.problem import HEADERS, plain_problem, problem
from sekisho.http.threads import Threads
from sekisho.wire.frames import unpack_chunks, unpack_digests

BYTES: Final = "application/octet-stream"
#: What a caller that hung up would have been told (nginx's number); for the metrics only.
_HUNG_UP: Final = 499

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What every endpoint works with. ``fatal`` ends the process; see SyncFailed."""

    gate: Gate
    threads: Threads
    meter: Meter
    clock: Clock
    fatal: Callable[[SyncFailed], None]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The ASGI application of one path."""

    rows: Mapping[str, Row]  #: by method
    context: Context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        started = self.context.clock.monotonic()
        row = self.rows.get(request.method)
        response = await self._answer(row, request)
        if row is not None:
            route = row.route
            self.context.meter.add("requests", route=route, status=str(response.status_code))
        if row is None or not row.waits:
            self.context.meter.observe(self.context.clock.monotonic() - started)
        await response(scope, receive, send)

    async def _answer(self, row: Row | None, request: Request) -> Response:
        if row is None:
            allow = {"Allow": ", ".join(sorted(self.rows))}
            return plain_problem(405, "http.method", allow)
        try:
            return _encoded(await self._run(row, request))
        except SyncFailed as error:
            self.context.fatal(error)
            return problem(error)
        except SekishoError as error:
            return problem(error)
        except ClientDisconnect:
            return Response(status_code=_HUNG_UP)
        except Exception:  # the boundary: whatever went wrong, the caller learns nothing of it
            log.exception("request_failed", route=row.route)
            return plain_problem(500, "internal")

    async def _run(self, row: Row, request: Request) -> Any:
        caller = await self.context.gate.admit(request, row.scope)
        query = converted(dict(request.query_params), row.query) if row.query else None
        message = await _message(row, request)
        call = Call(request, caller, message, query)
        if row.waits:
            return await row.run(call)
        return await self.context.threads.run(row.run, call)


async def _message(row: Row, request: Request) -> Any:
    if row.takes is Frames:
        return None  # read by the route itself, as it arrives
    if row.takes in (Chunks, Digests, Anything):
        body = await whole(request, MIB)
        if row.takes is Anything:
            return len(body)
        return unpack_chunks(body) if row.takes is Chunks else unpack_digests(body)
    body = await whole(request, MAX_MESSAGE_BYTES)
    return None if row.takes is None else decoded(body, row.takes)


def _encoded(result: Any) -> Response:
    match result:
        case None:
            return Response(status_code=204, headers=HEADERS)
        case Created(message=message):
            return _json(message, 201)
        case Stream(size=size, pieces=pieces):
            headers = {**HEADERS, "Content-Length": str(size)}
            return StreamingResponse(pieces, headers=headers, media_type=BYTES)
        case bytes():
            return Response(result, headers=HEADERS, media_type=BYTES)
        case str():
            return Response(result, headers=HEADERS, media_type="text/plain; version=0.0.4")
        case _:
            return _json(result, 200)


def _json(message: Any, status: int) -> Response:
    return Response(msgspec.json.encode(message), status, HEADERS, media_type="application/json")
