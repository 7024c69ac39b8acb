"""One request, after gate and decoding: what a route's function is given and may return."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from sekisho.domain.access import Principal, Scope
from sekisho.domain.errors import Unauthenticated
from sekisho.http.body import pieces


@dataclass(frozen=True, slots=True)
class Call:
    """A request. ``message`` and ``query`` have the types that the route's row names."""

    request: Request
    caller: Principal | None
    message: Any = None
    query: Any = None

    @property
    def principal(self) -> Principal:
        """The caller, of a route that is not open."""
        if self.caller is None:
            raise Unauthenticated
        return self.caller

    @property
    def user(self) -> str:
        return self.principal.name

    @property
    def id(self) -> str:
        """What the path names."""
        return str(self.request.path_params["id"])

    def body(self) -> AsyncGenerator[bytes]:
        """Return the body of a streaming route, as it arrives."""
        return pieces(self.request)

    async def gone(self) -> bool:
        """Say whether the caller has hung up."""
        return await self.request.is_disconnected()


class Chunks:
    """Body: chunks, 36 bytes each (digest, size)."""


class Digests:
    """Body: digests, 32 bytes each."""


class Frames:
    """Body: a stream of frames (digest, size, bytes)."""


class Anything:
    """Body: whatever, up to the limit; it is counted, not read."""


class Text:
    """Body: plain text."""


class Document:
    """Body: a JSON document."""


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer of known length, sent piece by piece."""

    size: int
    pieces: Iterator[bytes]


@dataclass(frozen=True, slots=True)
class Created:
    """An answer about something that was not there before."""

    message: Any


@dataclass(frozen=True, slots=True)
class Row:
    """One route, as ``"METHOD /path"``. ``scope`` has no default: every row must say it.

    ``waits`` marks a function that is awaited; all others run in worker threads.
    """

    route: str
    scope: Scope
    takes: type | None
    gives: type
    run: Callable[[Call], Any]
    purpose: str
    query: type | None = None
    waits: bool = False

    @property
    def method(self) -> str:
        return self.route.split(" ")[0]

    @property
    def path(self) -> str:
        return self.route.split(" ")[1]
