"""A server with the shape of the broker's and nothing behind it: `python -m bench.bare SERVER …`.

Small JSON questions, long polls that are held, chunks of 1 MiB that are read and dropped. Under
uvicorn it runs with the very settings of the broker; granian gets the same work.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Final

import msgspec
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.server import Server
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sekisho.adapters.http_server import Listening, TlsFiles, serve
from sekisho.wire.v1 import Done, Poll

SERVERS: Final = ("uvicorn", "granian")
_HOLD_SECONDS: Final = 25.0


async def _ask(request: Request) -> Response:
    msgspec.json.decode(await request.body(), type=Poll)
    return Response(msgspec.json.encode(Done()), media_type="application/json")


async def _poll(request: Request) -> Response:
    msgspec.json.decode(await request.body(), type=Poll)
    await asyncio.sleep(_HOLD_SECONDS)
    return Response(status_code=204)


async def _put(request: Request) -> Response:
    size = 0
    async for piece in request.stream():
        size += len(piece)
    return Response(msgspec.json.encode(size), media_type="application/json")


app = Starlette(
    routes=[
        Route("/ask", _ask, methods=["POST"]),
        Route("/poll", _poll, methods=["POST"]),
        Route("/put", _put, methods=["PUT"]),
    ]
)


def _uvicorn(port: int, cert: Path, key: Path) -> None:
    serve(app, Listening(host="127.0.0.1", port=port, tls=TlsFiles(cert, key)))


def _granian(port: int, cert: Path, key: Path) -> None:
    Server(
        "bench.bare:app",
        address="127.0.0.1",
        port=port,
        interface=Interfaces.ASGI,
        workers=1,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(),
        websockets=False,
        backlog=4096,
        log_enabled=False,
        ssl_cert=cert,
        ssl_key=key,
    ).serve()


def _main() -> None:
    line = argparse.ArgumentParser()
    line.add_argument("server", choices=SERVERS)
    line.add_argument("port", type=int)
    line.add_argument("cert", type=Path)
    line.add_argument("key", type=Path)
    given = line.parse_args()
    start = {"uvicorn": _uvicorn, "granian": _granian}[given.server]
    start(given.port, given.cert, given.key)


if __name__ == "__main__":
    _main()
