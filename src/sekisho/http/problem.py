"""Errors as RFC 9457 problems: a code and parameters; the sentence is made by the reader."""

from __future__ import annotations

from typing import Final

import msgspec
from starlette.responses import Response

from sekisho.domain.errors import SekishoError
from sekisho.wire.v1 import Problem

#: On every answer: nothing of it is kept by a cache, or taken for what it is not.
HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_RETRY_AFTER_SECONDS: Final = "5"
_MAX_TEXT: Final = 300


Value = str | int | float | bool | None | list[str]


def problem(error: SekishoError) -> Response:
    """Return the answer that tells ``error``."""
    headers = dict(HEADERS)
    if error.retryable:
        headers["Retry-After"] = _RETRY_AFTER_SECONDS
    if error.http_status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return _response(error.code, error.http_status, _params(error), headers)


def plain_problem(status: int, code: str, headers: dict[str, str] | None = None) -> Response:
    """Return a problem of HTTP itself: no such path, no such method, an error of ours."""
    return _response(code, status, {}, {**HEADERS, **(headers or {})})


def _response(
    code: str, status: int, params: dict[str, Value], headers: dict[str, str]
) -> Response:
    body = Problem(type=f"urn:sekisho:{code}", status=status, code=code, params=params)
    return Response(
        msgspec.json.encode(body), status, headers, media_type="application/problem+json"
    )


def _params(error: SekishoError) -> dict[str, Value]:
    return {name: _value(value) for name, value in error.params.items()}


def _value(value: object) -> Value:
    if isinstance(value, list):
        return [str(item)[:_MAX_TEXT] for item in value[:100]]
    if value is None or isinstance(value, int | float):
        return value
    return str(value)[:_MAX_TEXT]
