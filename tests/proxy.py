"""A proxy that misbehaves as told: the bad line, the overloaded gateway, the network's middle box.

It understands HTTP/1.1, so that a fault can befall one certain request: before the broker hears of
it, or after the broker did it and before the caller is told. Which one is decided by a `Rule`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

HOST: Final = "127.0.0.1"
_LIMIT: Final = 8 << 20
_FIRST_SECONDS: Final = 90.0
_PIECE: Final = 1 << 16
_JOB: Final = re.compile(r"job_[0-9a-z]{26}")
_LENGTH: Final = re.compile(rb"(?im)^content-length:[ \t]*([0-9]+)[ \t]*\r?$")


@dataclass(frozen=True, slots=True)
class Request:
    """What a caller asks: the row of the route table that it falls into, and its bytes."""

    method: str
    target: str
    head: bytes
    body: bytes

    @property
    def route(self) -> str:
        return f"{self.method} {_JOB.sub('{id}', self.target.partition('?')[0])}"

    @property
    def bytes(self) -> bytes:
        return self.head + self.body


# ------------------------------------------------------------------------------------- faults


@dataclass(frozen=True, slots=True)
class Instead:
    """The broker never hears of the request; the proxy answers ``status`` itself."""

    status: int = 502


@dataclass(frozen=True, slots=True)
class After:
    """The broker does it; the caller is told ``status`` by the proxy."""

    status: int = 502


@dataclass(frozen=True, slots=True)
class CutUp:
    """The line to the broker breaks after ``count`` bytes of the request."""

    count: int


@dataclass(frozen=True, slots=True)
class CutDown:
    """The broker does it; the line to the caller breaks after ``count`` bytes of the answer."""

    count: int


@dataclass(frozen=True, slots=True)
class Torn:
    """As `CutDown`, where ``place`` says when the answer is there; None: nowhere."""

    place: Callable[[bytes], int | None]


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is reset when the request has arrived, as after a long silence."""


@dataclass(frozen=True, slots=True)
class Twice:
    """The broker gets the request two times; the caller gets the second answer."""


@dataclass(frozen=True, slots=True)
class Closing:
    """All goes well, and then the connection is closed without a word."""


@dataclass(frozen=True, slots=True)
class Held:
    """The request is passed on when ``until`` is set; a hole that swallows it when never."""

    until: asyncio.Event


@dataclass(frozen=True, slots=True)
class Stripped:
    """Every header of the answer whose name begins with ``prefix`` is taken out."""

    prefix: str


@dataclass(frozen=True, slots=True)
class Flipped:
    """A byte of the body is another one on its way to the broker, or to the caller if ``down``."""

    at: int
    down: bool = False

    def of(self, text: bytes) -> bytes:
        """Return a request's body, or a whole answer, with the byte changed."""
        at = (text.index(b"\r\n\r\n") + 4 if self.down else 0) + self.at
        return text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :]


Fault = (
    Instead | After | CutUp | CutDown | Torn | Reset | Twice | Closing | Held | Stripped | Flipped
)
Rule = Callable[[Request], Fault | None]


def no_fault(_request: Request) -> None:
    """Let everything pass."""


class EachRequest:
    """Gives ``fault`` to the first ``times`` tries of every request that is ``meant``."""

    def __init__(self, fault: Fault, times: int, meant: Callable[[Request], bool]) -> None:
        self._fault = fault
        self._times = times
        self._meant = meant
        self.tries: dict[tuple[str, bytes], int] = {}  #: by target and body

    def __call__(self, request: Request) -> Fault | None:
        if not self._meant(request):
            return None
        key = request.method + request.target, request.body
        self.tries[key] = self.tries.get(key, 0) + 1
        return self._fault if self.tries[key] <= self._times else None


# -------------------------------------------------------------------------------------- proxy


@dataclass(slots=True)
class Proxy:
    """A running proxy. ``upstream`` and ``rule`` may be exchanged at any time."""

    port: int = 0
    upstream: int = 0  #: the broker's port, on this machine
    rule: Rule = no_fault
    max_body: int | None = None  #: longer requests are answered 413
    refused: int = 0  #: how many were
    whole: bool = False  #: answers are passed on only when they are complete
    idle_s: float = 90.0  #: how long a connection is kept without a further request
    seen: list[tuple[Request, bytes]] = field(default_factory=list)  #: with the broker's answers
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    async def serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one caller's connection until either side has had enough."""
        with contextlib.suppress(
            OSError, EOFError, asyncio.TimeoutError, asyncio.LimitOverrunError
        ):
            patience = max(self.idle_s, _FIRST_SECONDS)  # a new connection is new, however slow
            while await self._exchange(reader, writer, patience):
                patience = self.idle_s
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, patience_s: float
    ) -> bool:
        async with asyncio.timeout(patience_s):
            head = await reader.readuntil(b"\r\n\r\n")
        method, target = head.split(b" ", 2)[:2]
        body = await reader.readexactly(_length(head) or 0)
        request = Request(method.decode(), target.decode(), head, body)
        if self.max_body is not None and len(body) > self.max_body:
            self.refused += 1
            return await _say(writer, 413)
        fault = self.rule(request)
        match fault:
            case Instead(status):
                return await _say(writer, status)
            case Reset():
                return _reset(writer)
            case Held(until):
                await _first(until.wait(), reader.read(1))
                if not until.is_set():
                    return False
            case Twice():
                await self._ask(request, None)
            case CutUp(count):
                await self._ask(request, count)
                return _reset(writer)
        return await self._answer(request, fault, writer)

    async def _answer(
        self, request: Request, fault: Fault | None, writer: asyncio.StreamWriter
    ) -> bool:
        match fault:
            case Flipped(down=False):
                request = replace(request, body=fault.of(request.body))
            case After(status):
                await self._ask(request, None)
                return await _say(writer, status)
            case CutDown(count):
                writer.write((await self._ask(request, None))[:count])
                await writer.drain()
                return False
            case Torn(place):
                answer = await self._ask(request, None)
                end = place(answer)
                writer.write(answer[:end])
                await writer.drain()
                return end is None
            case Stripped(prefix):
                writer.write(_without(await self._ask(request, None), prefix.encode()))
                await writer.drain()
                return True
            case Flipped(down=True):
                writer.write(fault.of(await self._ask(request, None)))
                await writer.drain()
                return True
        if self.whole:
            writer.write(await self._ask(request, None))
            await writer.drain()
        else:
            await self._ask(request, None, writer)
        return not isinstance(fault, Closing)

    async def _ask(
        self, request: Request, cut: int | None, writer: asyncio.StreamWriter | None = None
    ) -> bytes:
        """Ask the broker on a connection of its own; pass the answer on as it arrives."""
        reader, up = await asyncio.open_connection(HOST, self.upstream, limit=_LIMIT)
        try:
            up.write(request.bytes[:cut])
            await up.drain()
            if cut is not None:
                return b""
            answer = b"".join([piece async for piece in _answer_of(reader, writer)])
            self.seen.append((request, answer))
            return answer
        finally:
            up.close()

    def call(self, work: Callable[[], Any]) -> None:
        """Do something in the proxy's own thread."""
        self.loop.call_soon_threadsafe(work)


async def _answer_of(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None
) -> Any:  # an asynchronous iterator of bytes
    head = await reader.readuntil(b"\r\n\r\n")
    left = _length(head)
    status = int(head.split(b" ", 2)[1])
    assert left is not None or status == 204, head  # the broker always tells the length
    left = left or 0
    piece = head
    while True:
        if writer is not None:
            writer.write(piece)
            await writer.drain()
        yield piece
        if not left:
            return
        piece = await reader.read(min(left, _PIECE))
        if not piece:
            raise EOFError
        left -= len(piece)


async def _say(writer: asyncio.StreamWriter, status: int) -> bool:
    text = b"<html>not the broker's words</html>"
    writer.write(
        f"HTTP/1.1 {status} Gateway\r\nContent-Type: text/html\r\n"
        f"Content-Length: {len(text)}\r\n\r\n".encode()
        + text
    )
    await writer.drain()
    return True


def _reset(writer: asyncio.StreamWriter) -> bool:
    taken: socket.socket = writer.get_extra_info("socket")
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


async def _first(*waits: Coroutine[Any, Any, Any]) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def _length(head: bytes) -> int | None:
    found = _LENGTH.search(head)
    return None if found is None else int(found[1])


def _without(answer: bytes, prefix: bytes) -> bytes:
    head, gap, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    kept = [line for line in lines if not line.lower().startswith(prefix.lower())]
    return b"\r\n".join([first, *kept]) + gap + body


@contextmanager
def proxy(tls: ssl.SSLContext | None = None) -> Iterator[Proxy]:
    """Run a proxy in a thread until the end of the block; with ``tls`` it speaks TLS to callers."""
    made, ready, tasks = Proxy(), threading.Event(), set[asyncio.Task[Any]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await made.serve_one(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()  # the end of the block: whoever still waits is let go
        finally:
            tasks.discard(task)

    async def main() -> None:
        server = await asyncio.start_server(serve, HOST, 0, ssl=tls, limit=_LIMIT, backlog=512)
        made.port = server.sockets[0].getsockname()[1]
        made.call(ready.set)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            server.close()
            for task in list(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    running = made.loop.create_task(main())
    thread = threading.Thread(target=lambda: _until_cancelled(made.loop, running))
    thread.start()
    try:
        assert ready.wait(10)
        yield made
    finally:
        made.call(running.cancel)
        thread.join(10)
        made.loop.close()


def _until_cancelled(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.run_until_complete(loop.shutdown_asyncgens())
