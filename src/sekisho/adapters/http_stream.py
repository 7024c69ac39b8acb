"""Sockets under HTTP that send a request in one piece: what is written waits for the first read.

The library writes the head and the body of a request one after the other (`gathered` says what
that costs). The asynchronous socket is a plain one that does not block: layers of buffers cost
twice what a request does.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeAlias, TypeVar

import anyio
import httpcore2
from httpcore2 import SOCKET_OPTION

from sekisho.adapters.gathered import Gathered

T = TypeVar("T")
_Wait: TypeAlias = Callable[[socket.socket], Awaitable[None]]


class GatheredStream(httpcore2.NetworkStream):
    """A stream whose writes go out together."""

    def __init__(self, below: httpcore2.NetworkStream) -> None:
        self._below = below
        self._written = Gathered()
        self._timeout: float | None = None  #: of what was written

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if held := self._written.taken():
            with suppress(httpcore2.WriteError):  # it may have answered before it closed
                self._below.write(held, self._timeout)
        return self._below.read(max_bytes, timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._timeout = timeout
        for data in self._written.add(buffer):
            self._below.write(data, timeout)

    def close(self) -> None:
        self._below.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        return GatheredStream(self._below.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._below.get_extra_info(info)


class Sockets(httpcore2.SyncBackend):
    """Connects as the library does, with streams that gather."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        return GatheredStream(
            super().connect_tcp(host, port, timeout, local_address, socket_options)
        )


class SocketStream(httpcore2.AsyncNetworkStream):
    """A socket that does not block, with or without TLS; its writes go out together."""

    def __init__(self, there: socket.socket) -> None:
        self._there = there
        self._written = Gathered()
        self._timeout: float | None = None  #: of what was written

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 the library's word
        if held := self._written.taken():
            with suppress(httpcore2.WriteError):  # it may have answered before it closed
                await self._send(held, self._timeout)
        with _translated(httpcore2.ReadTimeout, httpcore2.ReadError):
            return await self._done(
                partial(self._there.recv, max_bytes), anyio.wait_readable, timeout
            )

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        self._timeout = timeout
        for data in self._written.add(buffer):
            await self._send(data, timeout)

    async def aclose(self) -> None:
        self._there.close()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> SocketStream:
        with (
            _translated(httpcore2.ConnectTimeout, httpcore2.ConnectError),
            anyio.fail_after(timeout),
        ):
            try:
                safe = ssl_context.wrap_socket(
                    self._there, server_hostname=server_hostname, do_handshake_on_connect=False
                )
                stream = SocketStream(safe)
            except BaseException:
                self._there.close()
                raise
            try:
                await stream._done(safe.do_handshake, anyio.wait_readable, None)
            except BaseException:
                safe.close()
                raise
            return stream

    def get_extra_info(self, info: str) -> Any:
        if info == "ssl_object":
            return self._there if isinstance(self._there, ssl.SSLSocket) else None
        return _readable(self._there) if info == "is_readable" else None

    async def _send(self, data: bytes, seconds: float | None) -> None:
        left = memoryview(data)
        with _translated(httpcore2.WriteTimeout, httpcore2.WriteError):
            while left:
                send = partial(self._there.send, left)
                left = left[await self._done(send, anyio.wait_writable, seconds) :]

    async def _done(self, act: Callable[[], T], blocked: _Wait, seconds: float | None) -> T:
        """Return what ``act`` returns once it need not wait; a bare socket waits as ``blocked``.

        It waits for ``seconds`` at most, each time that it must.
        """
        while True:
            wait = blocked
            try:
                return act()
            except BlockingIOError:
                pass
            except ssl.SSLWantReadError:
                wait = anyio.wait_readable
            except ssl.SSLWantWriteError:
                wait = anyio.wait_writable
            with anyio.fail_after(seconds):
                await wait(self._there)


class AsyncSockets(httpcore2.AsyncNetworkBackend):
    """Connects to one address of a host after the other, within one time-out."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,  # noqa: ARG002 nobody sets it
        socket_options: Iterable[SOCKET_OPTION] | None = None,  # noqa: ARG002
    ) -> SocketStream:
        with (
            _translated(httpcore2.ConnectTimeout, httpcore2.ConnectError),
            anyio.fail_after(timeout),
        ):
            rows = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            refusal: OSError = ConnectionError(host)
            for family, kind, protocol, _, address in rows:
                try:
                    return SocketStream(await _connected(family, kind, protocol, address))
                except OSError as error:
                    refusal = error
            raise refusal


async def _connected(family: int, kind: int, protocol: int, address: Any) -> socket.socket:
    there = socket.socket(family, kind, protocol)
    try:
        there.settimeout(0)
        there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        fault = there.connect_ex(address)
        if fault == errno.EINPROGRESS:
            await anyio.wait_writable(there)
            fault = there.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        _check(fault)
    except BaseException:
        there.close()
        raise
    return there


def _check(fault: int) -> None:
    if fault:
        raise OSError(fault, os.strerror(fault))


def _readable(there: socket.socket) -> bool:
    """Say whether there is something to read, the end included: none is owed when nobody asked."""
    if there.fileno() < 0:
        return True
    ready = select.poll()
    ready.register(there, select.POLLIN)
    return bool(ready.poll(0))


@contextmanager
def _translated(late: type[Exception], failed: type[Exception]) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise late(str(error)) from error
    except OSError as error:
        raise failed(str(error)) from error
