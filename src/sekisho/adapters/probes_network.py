"""Looking at the way to a broker, one layer after the other, each by a connection of its own.

The same trust and the same proxy as the agent's are used. Nothing but the greeting of each layer is
sent; verification is never off: what an unbelieved server showed is read after the refusal.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sekisho.adapters.http_client import USER_AGENT, trust
from sekisho.adapters.way import HTTP_PORTS, Proxy, Way
from sekisho.site.check import Certificate, Finding, found, judge_certificate, ok

SECONDS: Final = 10.0
_MAX_HEAD_BYTES: Final = 64 << 10


class _Refusal(Exception):
    """A layer said no; carries the finding."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.code)
        self.finding = finding


class NetworkProbe:
    """Checks of one way. Each builds the layers below it anew, and reports on its own only."""

    def __init__(self, way: Way, ca_file: Path | None, *, seconds: float = SECONDS) -> None:
        self._way = way
        self._ca_file = ca_file
        self._seconds = seconds

    def dns(self) -> Finding:
        host, port = self._way.first
        try:
            rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            unheard = getattr(error, "errno", None) == socket.EAI_AGAIN
            return found("dns", "check.dns", host=host, why="name_server" if unheard else "address")
        return ok("dns", f"{host}: {', '.join(sorted({str(row[4][0]) for row in rows}))}")

    def tcp(self) -> Finding:
        try:
            with self._connected():
                host, port = self._way.first
                return ok("tcp", f"{host}:{port}")
        except _Refusal as refusal:
            return refusal.finding

    def proxy(self) -> Finding:
        proxy = self._way.proxy
        if proxy is None:
            return ok("proxy", "-")
        if proxy.scheme not in HTTP_PORTS:
            return found("proxy", "check.proxy_kind", proxy=str(proxy), source=proxy.source)
        if proxy.scheme == "https" or not self._way.tls:
            return found("proxy", "check.proxy_https", proxy=str(proxy), source=proxy.source)
        try:
            with self._path():
                return ok("proxy", f"{proxy} ({proxy.source})")
        except _Refusal as refusal:
            return refusal.finding

    def tls(self) -> Finding:
        if not self._way.tls:
            return found("tls", "check.tls_unused", host=self._way.host)
        if self._way.proxy is not None and self._way.proxy.scheme != "http":
            return found("tls", "check.not_tried", first="proxy")
        try:
            return self._handshake(trust(self._ca_file))
        except _Refusal as refusal:
            return refusal.finding

    def _handshake(self, context: ssl.SSLContext) -> Finding:
        host = self._way.host
        with self._path() as path:
            talk = context.wrap_socket(path, server_hostname=host, do_handshake_on_connect=False)
            with talk:
                try:
                    talk.do_handshake()
                except ssl.SSLCertVerificationError as error:
                    shown = _shown(talk)
                    inspected = self._ca_file is not None and self._believed_by_machine()
                    return judge_certificate(
                        error.verify_code, error.verify_message, shown, host, inspected=inspected
                    )
                except OSError as error:
                    why = "tls" if isinstance(error, ssl.SSLError) else _reason(error)
                    return found("tls", "check.tls_broken", host=host, why=why)
                issuer = _rdn((talk.getpeercert() or {}).get("issuer", ()))
                return ok("tls", f"{talk.version()}, {issuer}")

    def _believed_by_machine(self) -> bool:
        """Say whether this machine's own authorities vouch for what the server shows."""
        context = trust(None)
        with self._path() as path:
            try:
                context.wrap_socket(path, server_hostname=self._way.host).close()
            except OSError:
                return False
        return True

    @contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        host, port = self._way.first
        try:
            connection = socket.create_connection((host, port), timeout=self._seconds)
        except (OSError, UnicodeError) as error:
            why = _reason(error)
            raise _Refusal(found("tcp", "check.tcp", host=host, port=port, why=why)) from error
        with connection:
            yield connection

    @contextmanager
    def _path(self) -> Iterator[socket.socket]:
        """Give a connection to the broker itself, through the proxy if there is one."""
        with self._connected() as connection:
            if self._way.proxy is not None:
                self._ask_through(connection, self._way.proxy)
            yield connection

    def _ask_through(self, connection: socket.socket, proxy: Proxy) -> None:
        target = f"{self._way.host}:{self._way.port}"
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", f"User-Agent: {USER_AGENT}"]
        if proxy.login is not None:
            lines.append(f"Proxy-Authorization: {proxy.login.basic}")
        try:
            connection.sendall("\r\n".join([*lines, "", ""]).encode())
            status = _status(_head(connection))
        except OSError as error:
            status = _reason(error)
        if status == "407":
            raise _Refusal(found("proxy", "check.proxy_login", proxy=str(proxy)))
        if not status.startswith("2"):
            raise _Refusal(found("proxy", "check.proxy_refused", proxy=str(proxy), status=status))


def _head(connection: socket.socket) -> bytes:
    """Return an answer's head, byte by byte: what follows belongs to the layer above."""
    head = bytearray()
    while not head.endswith(b"\r\n\r\n") and len(head) < _MAX_HEAD_BYTES:
        piece = connection.recv(1)
        if not piece:
            break
        head += piece
    return bytes(head)


def _status(head: bytes) -> str:
    words = head.split(b"\r\n", 1)[0].split(b" ", 2)
    known = len(words) > 1 and words[0].startswith(b"HTTP/") and words[1].isdigit()
    return words[1].decode() if known else "cut"


def _reason(error: Exception) -> str:
    """Return why a connection failed, in one word."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    return errno.errorcode.get(getattr(error, "errno", None) or 0, "cut")


def _shown(talk: ssl.SSLSocket) -> Certificate:
    """Return what a server showed that was not believed.

    The module `ssl` keeps it after the refusal, but has no public name for it before Python 3.13.
    """
    inner: Any = getattr(talk, "_sslobj", None)
    chain = inner.get_unverified_chain() if inner is not None else None
    facts: dict[str, Any] = chain[0].get_info() if chain else {}
    return Certificate(
        issuer=_rdn(facts.get("issuer", ())),
        names=tuple(str(name) for _, name in facts.get("subjectAltName", ())),
        begins=str(facts.get("notBefore", "")),
        ends=str(facts.get("notAfter", "")),
    )


def _rdn(name: Any) -> str:
    """Return a distinguished name as people write it."""
    return ", ".join(str(value) for group in name for _, value in group)
