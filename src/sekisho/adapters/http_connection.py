"""One connection to the broker. Nobody keeps one open for ever without asking anything.

uvicorn waits without end for the head of a request, for whoever reads slowly, and for the rest of a
request that was refused early. Here each of these phases has a deadline, and of the connections
that are in no request only so many may be open: when there are more, the one that has waited
longest is closed. A head has a greatest length; what follows a body (trailers) has the same, and is
no part of the head: no proxy has looked at it. Callers that do their part never notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from sekisho.adapters.gathered_transport import GatheredTransport

#: As much as nginx takes with its defaults: a URL and a token are a few hundred bytes.
MAX_HEAD_BYTES: Final = 32_768
_AT_ONCE: Final = struct.pack("ii", 1, 0)
_TOO_LONG: Final = b"HTTP/1.1 431 \r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How many seconds a connection may stay in each phase."""

    handshake_s: float = 15.0  #: until TLS is spoken
    head_s: float = 20.0  #: until the whole head of a request is there
    rest_s: float = 120.0  #: for what still arrives of a request that was answered already
    idle_s: float = 120.0  #: between two requests; the keep-alive time and some for its end
    stalled_s: float = 60.0  #: without a byte read of an answer that waits to be read


class _Phase(Enum):
    HEAD = "head"
    BUSY = "busy"
    REST = "rest"
    IDLE = "idle"


class WaitingRoom:
    """The connections that are in no request, the one that has waited longest first."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._waiting: dict[Connection, None] = {}

    def enter(self, connection: Connection) -> None:
        """Let ``connection`` wait; whoever has waited longest leaves when there is no place."""
        self._waiting.setdefault(connection)
        while len(self._waiting) > self._places:
            next(iter(self._waiting)).leave_at_once()

    def leave(self, connection: Connection) -> None:
        self._waiting.pop(connection, None)


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with an end to every wait."""

    def __init__(self, deadlines: Deadlines, room: WaitingRoom, **given: Any) -> None:
        super().__init__(**given)
        self._deadlines = deadlines
        self._room = room
        self._phase: _Phase | None = None
        self._ends: asyncio.TimerHandle | None = None
        self._stalls: asyncio.TimerHandle | None = None
        self._reading: _Phase | None = None  #: what the parser is in: a head, the rest, nothing
        self._head_bytes = 0  #: what came without a byte of a body: a head, or what follows a body
        self._moved = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(GatheredTransport(transport, self.loop))
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        self._room.leave(self)
        for timer in (self._ends, self._stalls):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._moved = False
        super().data_received(data)
        self._look()
        bodiless = self._reading is not None and not self._moved
        self._head_bytes = self._head_bytes + len(data) if bodiless else 0
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_length()

    def _refuse_length(self) -> None:
        """Hear no more of a head, or of what follows a body, that does not end."""
        if self._phase is _Phase.BUSY:
            self.leave_at_once()
            return
        self.transport.write(_TOO_LONG)
        self.transport.close()

    def on_message_begin(self) -> None:
        self._reading = _Phase.HEAD
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, but none that follows the body: no proxy has looked at those."""
        if self._reading is _Phase.HEAD:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._reading = _Phase.REST
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Pass on what came as it is, when nothing waits before it; uvicorn copies it twice."""
        self._moved = True
        if self.cycle.body or self.cycle.response_complete:
            super().on_body(body)
            return
        self.cycle.body = body  # type: ignore[assignment] # `receive` makes bytes of it: the same
        super().on_body(b"")

    def on_message_complete(self) -> None:
        self._reading = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_reader(self.transport.get_write_buffer_size() + 1)

    def resume_writing(self) -> None:
        if self._stalls is not None:
            self._stalls.cancel()
            self._stalls = None
        super().resume_writing()

    def leave_at_once(self) -> None:
        """Close without waiting for anything that the other side should do.

        What it has not read is thrown away: otherwise the kernel would keep it, for as long as it
        is not read.
        """
        self._room.leave(self)
        if (there := self.transport.get_extra_info("socket")) is not None:
            with contextlib.suppress(OSError):  # it is gone already
                there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self.transport.abort()

    def _await_reader(self, unread: int) -> None:
        """Give up when a whole period brings the other side no byte further."""
        left = self.transport.get_write_buffer_size()
        if left >= unread:
            self.leave_at_once()
            return
        self._stalls = self.loop.call_later(self._deadlines.stalled_s, self._await_reader, left)

    def _look(self) -> None:
        """Begin the deadline of the phase that the connection has come into."""
        phase = self._present()
        if phase is self._phase:
            return
        self._phase = phase
        if self._ends is not None:
            self._ends.cancel()
        self._ends = None
        if phase is _Phase.BUSY:
            self._room.leave(self)
            return
        self._ends = self.loop.call_later(self._seconds(phase), self.leave_at_once)
        self._room.enter(self)
        if phase is _Phase.REST and any(name == b"transfer-encoding" for name, _ in self.headers):
            self.transport.close()  # a rest without a length need never end

    def _present(self) -> _Phase:
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            return _Phase.BUSY
        if self._reading is not None:
            return self._reading
        return _Phase.HEAD if cycle is None else _Phase.IDLE

    def _seconds(self, phase: _Phase) -> float:
        limits = self._deadlines
        if phase is _Phase.HEAD:
            return limits.head_s
        return limits.rest_s if phase is _Phase.REST else limits.idle_s


def connections(deadlines: Deadlines, places: int) -> type[asyncio.Protocol]:
    """Return what uvicorn makes a connection with; at most ``places`` are in no request."""
    room = WaitingRoom(places)
    make: Callable[..., Connection] = lambda **given: Connection(deadlines, room, **given)  # noqa: E731
    return cast("type[asyncio.Protocol]", make)  # uvicorn only calls it
