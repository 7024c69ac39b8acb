"""Requests to one broker, each alone on a connection, which is kept for the next one.

The connection that was used last is taken first. (The library's own pool asks every connection at
every request whether it still lives, and its client turns each message over several times more.)
What goes wrong on the way leaves as an error of ours; an answer of any status is an answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar
from urllib.parse import quote, urlencode

import anyio
import httpcore2
from httpcore2 import AsyncConnectionInterface, ConnectionInterface

from sekisho.adapters.bearer import Bearer
from sekisho.adapters.http_problem import FAULTS, error_from
from sekisho.domain.errors import TooLarge

JSON: Final = "application/json"
CONNECT_SECONDS: Final = 15.0
READ_SECONDS: Final = 60.0
MAX_ANSWER_BYTES: Final = 64 << 20
#: So many connections wait for a next request; what is more was needed for a moment only.
_MAX_IDLE: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request. ``read_s`` is how long the other side may be silent.

    A body that is made while it is sent says its ``size`` in bytes before.
    """

    method: str
    path: str
    body: bytes | Iterator[bytes] = b""
    size: int | None = None
    content_type: str = JSON
    query: Mapping[str, str] | None = None
    read_s: float = READ_SECONDS


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: ``pieces`` is the body as it arrives, to be read at once."""

    status: int
    headers: list[tuple[bytes, bytes]]
    pieces: Iterator[bytes]

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300

    def header(self, name: str) -> str:
        """Return the value of a header, or nothing."""
        wanted = name.lower().encode()
        found = (value for key, value in self.headers if key.lower() == wanted)
        return next(found, b"").decode("latin-1")

    def whole(self, limit: int = MAX_ANSWER_BYTES) -> bytes:
        """Return the body, or raise TooLarge."""
        body = bytearray()
        for piece in self.pieces:
            _add(body, piece, limit)
        return bytes(body)


def _add(body: bytearray, piece: bytes, limit: int = MAX_ANSWER_BYTES) -> None:
    body += piece
    if len(body) > limit:
        raise TooLarge(limit=limit)


@dataclass(frozen=True, slots=True)
class Target:
    """What all requests to one broker share. ``path`` begins and ends with a slash."""

    origin: httpcore2.Origin
    path: str
    headers: tuple[tuple[bytes, bytes], ...]
    bearer: Bearer

    def request(self, call: Call) -> httpcore2.Request:
        """Return the request that ``call`` means."""
        target = self.path + quote(call.path, safe="/")
        if call.query:
            target += "?" + urlencode(call.query)
        origin = self.origin
        timeouts = {
            "connect": CONNECT_SECONDS,
            "read": call.read_s,
            "write": call.read_s,
        }
        return httpcore2.Request(
            call.method,
            httpcore2.URL(
                scheme=origin.scheme,
                host=origin.host,
                port=origin.port,
                target=target.encode("ascii"),
            ),
            headers=[*self.headers, self.bearer.header(), *_about(call)],
            content=call.body,
            extensions={"timeout": timeouts},
        )


def _about(call: Call) -> list[tuple[bytes, bytes]]:
    """Return what is said of a body; that there is none is said where there could be one."""
    size = len(call.body) if isinstance(call.body, bytes) else call.size
    length = [(b"Content-Length", b"%d" % size)] if size is not None else []
    if call.method == "GET":
        return []
    return [(b"Content-Type", call.content_type.encode("ascii")), *length] if size else length


class _Connection(Protocol):
    """What both kinds of connections tell of themselves."""

    def is_available(self) -> bool: ...

    def has_expired(self) -> bool: ...


C = TypeVar("C", bound=_Connection)


class Idle(Generic[C]):
    """Connections that wait for a request, the one used last at the end. Safe between threads."""

    def __init__(self) -> None:
        self._waiting: deque[C] = deque()
        self._spent: deque[C] = deque()

    def take(self) -> C | None:
        """Return one that still lives; None: there is none."""
        with suppress(IndexError):
            while (connection := self._waiting.pop()).has_expired():
                self._spent.append(connection)
            return connection
        return None

    def leave(self, connection: C) -> None:
        """Keep ``connection`` for the next request, and let the oldest go when it is too old."""
        if not connection.is_available() or len(self._waiting) >= _MAX_IDLE:
            self._spent.append(connection)
            return
        with suppress(IndexError):
            oldest = self._waiting.popleft()
            (self._spent if oldest.has_expired() else self._waiting).appendleft(oldest)
        self._waiting.append(connection)

    def spent(self) -> Iterator[C]:
        """Yield, once, what is to be closed."""
        with suppress(IndexError):
            while True:
                yield self._spent.popleft()

    def every(self) -> Iterator[C]:
        """Yield, once, all that is open and in no request."""
        yield from self.spent()
        with suppress(IndexError):
            while True:
                yield self._waiting.pop()


class Sender:
    """Sends requests from any thread. ``connect`` makes a connection that opens when it is used."""

    def __init__(self, target: Target, connect: Callable[[], ConnectionInterface]) -> None:
        self._target = target
        self._connect = connect
        self._idle: Idle[ConnectionInterface] = Idle()

    @contextmanager
    def answer(self, call: Call) -> Iterator[Answer]:
        """Send ``call`` once, and give its answer; raise Unreachable when there is none."""
        connection = self._idle.take() or self._connect()
        try:
            response = connection.handle_request(self._target.request(call))
            self._target.bearer.heed(response.status)
            try:
                yield Answer(response.status, response.headers, response.iter_stream())
            finally:
                response.close()
        except FAULTS as error:
            raise error_from(error) from error
        finally:
            self._idle.leave(connection)
            for spent in self._idle.spent():
                spent.close()

    def close(self) -> None:
        """Close the connections that are in no request."""
        for connection in self._idle.every():
            connection.close()


class AsyncSender:
    """Sends requests from one event loop; what is cancelled closes its connection."""

    def __init__(self, target: Target, connect: Callable[[], AsyncConnectionInterface]) -> None:
        self._target = target
        self._connect = connect
        self._idle: Idle[AsyncConnectionInterface] = Idle()

    async def answer(self, call: Call) -> tuple[Answer, bytes]:
        """Send ``call`` once, and return its answer with the whole body; errors as `Sender`."""
        connection = self._idle.take() or self._connect()
        try:
            response = await connection.handle_async_request(self._target.request(call))
            self._target.bearer.heed(response.status)
            body = bytearray()
            try:
                async for piece in response.aiter_stream():
                    _add(body, piece)
            finally:
                await response.aclose()
        except FAULTS as error:
            raise error_from(error) from error
        finally:
            self._idle.leave(connection)
            await _closed(self._idle.spent())
        return Answer(response.status, response.headers, iter(())), bytes(body)

    async def aclose(self) -> None:
        """Close the connections that are in no request."""
        await _closed(self._idle.every())


async def _closed(connections: Iterator[AsyncConnectionInterface]) -> None:
    for connection in connections:
        with anyio.CancelScope(shield=True):
            await connection.aclose()
