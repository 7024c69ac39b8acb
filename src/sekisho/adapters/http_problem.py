"""From an HTTP answer, or the lack of one, to the error that it means.

A problem document of the broker becomes the class of its code or status. What somebody else on
the way answered (a gateway, a portal of the network) is never taken for the broker's word.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Final

import httpx2
import msgspec

from sekisho.adapters.problem_error import problem_error
from sekisho.domain.errors import SekishoError, TooLarge, Unavailable, Unreachable
from sekisho.wire.v1 import Problem

#: Answers of gateways and proxies that mean "later".
_GATEWAY: Final = frozenset({408, 429, 500, 502, 503, 504})
MAX_PROBLEM_BYTES: Final = 64 << 10


def error_of(status: int, body: bytes, headers: Mapping[str, str]) -> SekishoError:
    """Return the error that an answer with ``status`` (not 2xx) means."""
    error = _error(status, body)
    if asked := headers.get("retry-after", ""):
        error.params["retry_after_s"] = int(asked[:9]) if asked.isascii() and asked.isdigit() else 0
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


def error_from(error: httpx2.RequestError) -> Unreachable:
    """Return the error that a failed request means, with why in one word."""
    if verification := _verification(error):
        return Unreachable("broker.tls", why=verification)
    match error:
        case httpx2.ProxyError():
            return _proxy_error(str(error))
        case httpx2.TimeoutException():
            return Unreachable(why="timeout")
        case httpx2.ConnectError():
            return Unreachable(why="connection")
        case _:
            return Unreachable(why="cut")


def _proxy_error(said: str) -> Unreachable:
    """Return the error of a proxy's answer: a status with its reason, or that of a SOCKS proxy."""
    if said.startswith(("407", "Invalid username")):
        return Unreachable("broker.proxy_login")
    if said.startswith("403"):
        return Unreachable("broker.proxy_refused")
    return Unreachable("broker.proxy")


def _verification(error: BaseException | None) -> str | None:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return getattr(error, "verify_message", None) or "certificate"
        error = error.__cause__ or error.__context__
    return None
