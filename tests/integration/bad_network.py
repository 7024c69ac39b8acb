"""What a site's requests can meet on their way: brokers that lie, proxies that refuse, cut lines.

Small servers of our own on the loopback interface, which end with their block.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import trustme

from sekisho import __version__
from sekisho.config.site_template import agent_text
from sekisho.domain.access import Role
from sekisho.domain.token import make_token

MANIFEST: Final = """\
schema = 1
site = "one"
submitters = ["tanaka"]
[[command]]
name = "hello"
argv = ["/bin/echo", "hello"]
time_limit_s = 60
"""


@dataclass(kw_only=True)
class Manners:
    """How a broker, or what stands before it, behaves. The usual ones are good."""

    hosts: tuple[str, ...] = ("127.0.0.1",)
    ends: datetime | None = None
    ahead: timedelta = timedelta()
    version: str = __version__
    role: str = "site"
    name: str = "one"
    max_body_bytes: int = 1 << 30
    idle_s: float | None = None  #: a silent connection is cut after so long
    idle_status: int | None = None  #: what a long poll is answered at once
    status: int = 200
    seen: list[str] = field(default_factory=list)


class Quiet(ThreadingHTTPServer):
    daemon_threads = False
    manners: Manners

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A refused handshake or a cut line is what the tests are about."""


class Answers(BaseHTTPRequestHandler):
    """A broker's three routes of the diagnosis."""

    server: Quiet
    protocol_version = "HTTP/1.1"
    timeout = 30

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the library's name)
        self.server.manners.seen.append(format % args)

    def do_GET(self) -> None:
        manners = self.server.manners
        if "idle_s" in self.path and manners.idle_status is not None:
            self._answer(manners.idle_status, b"")
            return
        if "idle_s" in self.path and manners.idle_s is not None:
            self.connection.settimeout(manners.idle_s)
            with suppress(TimeoutError):
                self.connection.recv(1)
            self.close_connection = True
            return
        self._identify()

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        if length > self.server.manners.max_body_bytes:
            self._answer(413, b"too large")
            self.close_connection = True
            return
        self.rfile.read(length)
        self._identify()

    def _identify(self) -> None:
        manners = self.server.manners
        at = datetime.now(UTC) + manners.ahead
        body = {
            "role": manners.role,
            "name": manners.name,
            "at": at.isoformat(),
            "broker_version": manners.version,
            "max_body_bytes": 1 << 20,
        }
        self._answer(manners.status, json.dumps(body).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@dataclass(frozen=True)
class Authority:
    """A throw-away authority with its file."""

    ca: trustme.CA
    file: Path


def an_authority(folder: Path, name: str = "ca") -> Authority:
    authority = trustme.CA(organization_name=f"Organisation of {name}")
    authority.cert_pem.write_to_path(folder / f"{name}.pem")
    return Authority(authority, folder / f"{name}.pem")


@contextmanager
def answering(authority: Authority | None, manners: Manners) -> Iterator[str]:
    """Serve as ``manners`` say, certified by ``authority`` or without TLS; give the URL."""
    server = Quiet(("127.0.0.1", 0), Answers)
    server.manners = manners
    scheme = "http"
    if authority is not None:
        scheme = "https"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        leaf = authority.ca.issue_cert(*manners.hosts, not_after=manners.ends)
        leaf.configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"{scheme}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join(20)
        server.server_close()


@contextmanager
def proxying(  # noqa: C901 (one conversation, told in one place)
    status: bytes = b"200 OK", *, login: str = ""
) -> Iterator[tuple[str, list[str]]]:
    """Run a proxy that answers every CONNECT with ``status``; give its URL and what was asked.

    With ``login`` (the words of a header) it answers 407 to whoever does not say them.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    asked: list[str] = []
    threads: list[threading.Thread] = []

    def serve() -> None:
        while True:
            try:
                caller, _ = listener.accept()
            except OSError:
                return
            worker = threading.Thread(target=one, args=(caller,))
            threads.append(worker)
            worker.start()

    def one(caller: socket.socket) -> None:
        with caller, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                piece = caller.recv(1024)
                if not piece:  # only looked whether somebody is here
                    return
                head += piece
            text = head.decode()
            asked.append(text)
            answer = status if login in text else b"407 Proxy Authentication Required"
            caller.sendall(b"HTTP/1.1 " + answer + b"\r\n\r\n")
            if answer.startswith(b"200"):
                host, port = text.split(" ")[1].rsplit(":", 1)
                with socket.create_connection((host, int(port))) as there:
                    pump(caller, there)

    acceptor = threading.Thread(target=serve)
    acceptor.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in (acceptor, *threads):
            thread.join(20)


def pump(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes both ways until both sides have ended."""

    def carry(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    back = threading.Thread(target=carry, args=(other, one))
    back.start()
    carry(one, other)
    back.join(20)


def a_place(
    folder: Path, url: str, *, ca: Path | None = None, token: str | None = None, proxy: str = ""
) -> Path:
    """Make a site's directory for the broker at ``url``, in order in every way."""
    home = folder / "site"
    for place in (home, home / "work", home / "state"):
        place.mkdir(mode=0o700)
    text = agent_text(url=url, ca_file=None if ca is None else str(ca))
    if proxy:
        text = text.replace("[site]\n", f'proxy = "{proxy}"\n[site]\n', 1)
    secret = token or make_token(Role.SITE, bytes(32)).reveal()
    for name, content in (("agent.toml", text), ("manifest.toml", MANIFEST), ("token", secret)):
        file = home / name
        file.touch(0o600)
        file.write_text(content)
    return home
