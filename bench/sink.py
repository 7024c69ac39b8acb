"""A bare server that takes files and nothing else: `python -m bench.sink DIRECTORY`.

Prints its port. `PUT /file` streams a body to disk, `POST /json` takes it as base64 in JSON. Plain
HTTP, without a word of cryptography.
"""

from __future__ import annotations

import base64
import json
import socket
import sys
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def _app(home: Path) -> Starlette:
    async def put(request: Request) -> Response:
        with (home / "streamed").open("wb") as file:
            async for piece in request.stream():
                file.write(piece)
        return Response()

    async def post(request: Request) -> Response:
        message = json.loads(await request.body())
        (home / "decoded").write_bytes(base64.b64decode(message["content"]))
        return Response()

    return Starlette(
        routes=[Route("/file", put, methods=["PUT"]), Route("/json", post, methods=["POST"])]
    )


class _Told(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)


if __name__ == "__main__":
    config = uvicorn.Config(_app(Path(sys.argv[1])), port=0, log_level="error", access_log=False)
    _Told(config).run()
