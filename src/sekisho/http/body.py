"""Reading what a caller sends: bounded in size while it arrives, and never waited for for ever."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, TypeVar

import anyio
import msgspec
from starlette.requests import Request

from sekisho.domain.errors import TooLarge, Unavailable, UsageError

M = TypeVar("M")
STALL_SECONDS: Final = 60.0
#: Seventeen bytes a second: no line is so slow, only somebody who wants to keep a place.
STEP_BYTES: Final = 1024


async def pieces(request: Request, *, stall_s: float = STALL_SECONDS) -> AsyncGenerator[bytes]:
    """Return the body as it arrives; raise Unavailable when it comes too slowly.

    `STEP_BYTES`, or the end, must come within each ``stall_s`` of waiting for the caller. What we
    take for ourselves in between does not count.
    """
    waited, arrived = 0.0, 0
    async with aclosing(request.stream()) as stream:
        while True:
            began = anyio.current_time()
            try:
                with anyio.fail_after(stall_s - waited):
                    piece = await anext(stream, None)
            except TimeoutError as error:
                raise Unavailable("message.too_slow", limit=stall_s) from error
            if piece is None:
                return
            waited, arrived = waited + anyio.current_time() - began, arrived + len(piece)
            if arrived >= STEP_BYTES:
                waited, arrived = 0.0, 0
            yield piece


async def whole(request: Request, limit: int, *, stall_s: float = STALL_SECONDS) -> bytes:
    """Return the whole body, or raise TooLarge as soon as it passes ``limit`` bytes."""
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced[:20]) > limit:
        raise TooLarge(limit=limit)
    body = bytearray()
    async with aclosing(pieces(request, stall_s=stall_s)) as arriving:
        async for piece in arriving:
            body += piece
            if len(body) > limit:
                raise TooLarge(limit=limit)
    return bytes(body)


def decoded(body: bytes, kind: type[M]) -> M:
    """Return the message in ``body``, or raise UsageError(`message.invalid`)."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError("message.invalid", why=_why(error)) from error


def converted(query: dict[str, str], kind: type[M]) -> M:
    """Return the query parameters as ``kind``, or raise UsageError(`message.invalid`)."""
    try:
        return msgspec.convert(query, kind, strict=False)
    except msgspec.MsgspecError as error:
        raise UsageError("message.invalid", why=_why(error)) from error


def _why(error: Exception) -> str:
    """Return what is wrong, in the decoder's words: they name our fields, never what was sent."""
    return str(error)[:200] if isinstance(error, msgspec.ValidationError) else "form"
