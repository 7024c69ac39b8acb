"""From an HTTP answer, or the lack of one, to the error that it means.

A problem document of the broker becomes the class of its code or status. What somebody else on
the way answered (a gateway, a portal of the network) is never taken for the broker's word.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
from typing import Final

import httpcore2
import msgspec

from sekisho.adapters.problem_error import problem_error
from sekisho.domain.certificate import disbelief
from sekisho.domain.errors import SekishoError, TooLarge, Unavailable, Unreachable
from sekisho.wire.v1 import Problem

#: Answers of gateways and proxies that mean "later".
_GATEWAY: Final = frozenset({408, 429, 500, 502, 503, 504})
MAX_PROBLEM_BYTES: Final = 64 << 10
_NO_WAY: Final = (errno.EHOSTUNREACH, errno.ENETUNREACH)
#: Of OpenSSL's reasons: this side's that the other's version is too old, and the other's word.
_VERSION: Final = re.compile("UNSUPPORTED_PROTOCOL|PROTOCOL_VERSION")
#: What the library raises when there is no answer, or not the whole of it.
FAULTS: Final = (
    httpcore2.TimeoutException,
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    httpcore2.UnsupportedProtocol,
)


def error_of(status: int, body: bytes, retry_after: str = "") -> SekishoError:
    """Return the error that an answer with ``status`` (not 2xx) means."""
    error = _error(status, body)
    if retry_after:
        plain = retry_after.isascii() and retry_after.isdigit()
        error.params["retry_after_s"] = int(retry_after[:9]) if plain else 0
    return error


def _error(status: int, body: bytes) -> SekishoError:
    problem = _problem(body)
    if problem is not None:
        return problem_error(problem, status)
    if status == TooLarge.http_status:
        return TooLarge()
    if status in _GATEWAY:
        return Unavailable("broker.gateway", status=status)
    return Unreachable("broker.strange_answer", status=status)


def _problem(body: bytes) -> Problem | None:
    if len(body) > MAX_PROBLEM_BYTES:
        return None
    try:
        return msgspec.json.decode(body, type=Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def error_from(error: Exception) -> Unreachable:
    """Return the error that one of `FAULTS` means, with why in one word.

    What OpenSSL says of a certificate goes along as ``said``.
    """
    if verification := _verification(error):
        said = getattr(verification, "verify_message", "")
        why = disbelief(getattr(verification, "verify_code", 0)) or said or "certificate"
        return Unreachable("broker.tls", why=why, said=said)
    match error:
        case httpcore2.ProxyError():
            return _proxy_error(str(error))
        case httpcore2.TimeoutException():
            return Unreachable(why="timeout")
        case httpcore2.ConnectError():
            return Unreachable(why=_no_connection(error))
        case _:
            return Unreachable(why="cut")


def _no_connection(error: BaseException | None) -> str:
    """Return in one word why there is no connection, as far as the system says."""
    while error is not None:
        if isinstance(error, socket.gaierror):
            return "name_server" if error.errno == socket.EAI_AGAIN else "address"
        if isinstance(error, ConnectionRefusedError):
            return "refused"
        if isinstance(error, ssl.SSLError):
            return "tls_version" if _VERSION.search(error.reason or "") else "tls"
        if isinstance(error, OSError) and error.errno in _NO_WAY:
            return errno.errorcode[error.errno]
        error = error.__cause__ or error.__context__
    return "connection"


def _proxy_error(said: str) -> Unreachable:
    """Return the error of a proxy's answer: a status with its reason, or that of a SOCKS proxy."""
    if said.startswith(("407", "Invalid username")):
        return Unreachable("broker.proxy_login")
    if said.startswith("403"):
        return Unreachable("broker.proxy_refused")
    return Unreachable("broker.proxy")


def _verification(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error
        error = error.__cause__ or error.__context__
    return None
