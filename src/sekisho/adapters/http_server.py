"""Running the ASGI application: uvicorn on uvloop and httptools, TLS, and stopping in order.

Stopping: no new connections, long polls are answered at once, requests in flight get some seconds.
Whoever connects and then does nothing is let go (`http_connection`).
"""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog
import uvicorn
import uvloop
from starlette.types import ASGIApp

from sekisho.adapters.http_connection import Deadlines, connections
from sekisho.domain.errors import ConfigError

#: Longer than any client keeps an idle connection, so that the two never race to close it.
KEEP_ALIVE_SECONDS: Final = 90
GRACE_SECONDS: Final = 10
_BACKLOG: Final = 4096
#: As many files as a broker may need: one for each agent that polls, and those of everybody else.
_OPEN_FILES: Final = 65_536
#: Connections that are in no request; half of all files if that is less.
_IDLE_CONNECTIONS: Final = 8192

log = structlog.get_logger()


class TlsFiles:
    """A certificate with its key, which can be read again while connections are open."""

    def __init__(self, cert: Path, key: Path) -> None:
        self._cert = cert
        self._key = key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self.read()

    def read(self) -> None:
        """Use what the files hold now for new connections; raise ConfigError(`http.tls`)."""
        try:
            self.context.load_cert_chain(self._cert, self._key)
        except (OSError, ssl.SSLError) as error:
            why = error.strerror or type(error).__name__
            raise ConfigError("http.tls", file=str(self._cert), why=why) from error


def _nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where to listen, and whom to tell: when requests are taken, when no more are, on SIGHUP."""

    host: str
    port: int
    tls: TlsFiles | None = None
    trusted_proxies: Sequence[str] = field(default_factory=tuple)
    on_ready: Callable[[str, int], None] = lambda _host, _port: None
    on_stopping: Callable[[], None] = _nothing
    on_reload: Callable[[], None] = _nothing
    deadlines: Deadlines = field(default_factory=Deadlines)
    idle_connections: int = _IDLE_CONNECTIONS


class _Events(logging.Handler):
    """Passes what uvicorn and asyncio log on, as events of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        log.log(record.levelno, "server_logged", text=record.getMessage(), exc_info=record.exc_info)


def serve(app: ASGIApp, listening: Listening) -> None:
    """Serve ``app`` until SIGTERM or SIGINT; raise ConfigError when the address cannot be had."""
    listener = _bound(listening.host, listening.port)
    idle = min(listening.idle_connections, _open_files() // 2)
    logging.basicConfig(handlers=[_Events()], level=logging.WARNING)
    tls = listening.tls
    config = uvicorn.Config(
        app,
        loop="sekisho.adapters.http_server:_Loop",
        http=connections(listening.deadlines, idle),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(listening.trusted_proxies),
        forwarded_allow_ips=list(listening.trusted_proxies),
        ssl_context_factory=None if tls is None else lambda _config, _default: tls.context,
        backlog=_BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    try:
        _Server(config, listening).run(sockets=[listener])
    finally:
        listener.close()


def _open_files() -> int:
    """Allow this process the files that it may need; return how many it may open."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(now, _OPEN_FILES if most == resource.RLIM_INFINITY else min(_OPEN_FILES, most))
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    return wanted


class _Loop(uvloop.Loop):
    """A loop whose servers do not wait for ever for TLS to be spoken."""

    handshake_s = Deadlines().handshake_s

    async def create_server(self, *args: Any, ssl: Any = None, **more: Any) -> Any:
        limit = None if ssl is None else self.handshake_s
        return await super().create_server(*args, ssl=ssl, ssl_handshake_timeout=limit, **more)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, listening: Listening) -> None:
        super().__init__(config)
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        if isinstance(loop, _Loop):
            loop.handshake_s = self._listening.deadlines.handshake_s
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            self._listening.on_ready(host, port)

    async def main_loop(self) -> None:
        await super().main_loop()
        self._listening.on_stopping()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Hear signals in the loop: a stop that was asked for is a success, not a death."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        heard = {
            signal.SIGTERM: lambda: self.handle_exit(signal.SIGTERM, None),
            signal.SIGINT: lambda: self.handle_exit(signal.SIGINT, None),
            signal.SIGHUP: self._listening.on_reload,
        }
        for number, act in heard.items():
            loop.add_signal_handler(number, act)
        try:
            yield
        finally:
            for number in heard:
                loop.remove_signal_handler(number)


def _bound(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ConfigError("http.address", host=host, port=port, why=why) from error
    return listener
