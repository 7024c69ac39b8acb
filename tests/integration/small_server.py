"""The broker's server over an application that answers at once, unread; a process of its own.

    python -m tests.integration.small_server DEADLINES IDLE_CONNECTIONS [CERTIFICATE KEY]

It prints its port when it is ready. ``/much`` is answered with more than any buffer holds; a
request of ``/read`` is read to its end, and its ``X-User`` told.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from sekisho.adapters.http_connection import Deadlines
from sekisho.adapters.http_server import Listening, TlsFiles, serve

MUCH = 64 << 20


async def answer(request: Request) -> Response:
    if request.url.path == "/read":
        users = ", ".join(request.headers.getlist("x-user"))
        return PlainTextResponse(f"{len(await request.body())} bytes of <{users}> good")
    return PlainTextResponse("x" * MUCH if request.url.path == "/much" else "good")


def tell(_host: str, port: int) -> None:
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()


def main(deadlines: str, idle: str, *files: str) -> None:
    serve(
        Starlette(routes=[Route("/{path}", answer, methods=["GET", "POST"])]),
        Listening(
            host="127.0.0.1",
            port=0,
            tls=TlsFiles(*map(Path, files)) if files else None,
            on_ready=tell,
            deadlines=Deadlines(**json.loads(deadlines)),
            idle_connections=int(idle),
        ),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
