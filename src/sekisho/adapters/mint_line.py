"""Requests to an old MInt broker, and to ours below its old paths. Nothing is retried here.

Answers are bounded: a plain one in memory, one with files in a spool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Annotated, Any, Final

import httpx2
import msgspec
from msgspec import Meta, Struct

from sekisho.adapters.http_client import Address, base_url, http_client
from sekisho.adapters.http_problem import error_from
from sekisho.domain.errors import (
    StorageFull,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unreachable,
)
from sekisho.wire.mint import BASE_PATH
from sekisho.wire.mint_body import Lifted, Lifter

#: The port of an old broker where none is named.
DEFAULT_PORT: Final = 50443
_MAX_ANSWER_BYTES: Final = 1 << 20
_MAX_BODY_BYTES: Final = 4 << 30
_SEND_SECONDS: Final = 600.0


class Entry(Struct, kw_only=True):
    """The one entry of an answer. Its code is a number or, now and then, a text."""

    code: int | str = 0
    message: str = ""
    accept_id: str = ""

    @property
    def ok(self) -> bool:
        return self.code == 200

    @property
    def word(self) -> str:
        """What stands behind the colon of a status."""
        return self.message.partition(":")[2]


class _Answer(Struct, kw_only=True):
    errors: Annotated[list[Entry], Meta(min_length=1)]
    accept_id: str = ""


class MintLine:
    """A line to one broker's old paths. Close it at the end."""

    def __init__(self, address: Address, heard: Callable[[str], None] = lambda _: None) -> None:
        self._heard = heard  #: told of each call and its status, in a line without content
        self._client: httpx2.Client = http_client(address)
        self._client.base_url = base_url(address.url) + BASE_PATH.lstrip("/") + "/"

    def close(self) -> None:
        self._client.close()

    def ask(self, call: str, **query: str) -> Entry:
        """Make a GET call."""
        return self._entry("GET", call, params=query)

    def say(self, call: str, message: Mapping[str, Any]) -> Entry:
        """Make a POST call."""
        body = msgspec.json.encode(message)
        return self._entry("POST", call, content=body, headers=_json(len(body)))

    def send(self, call: str, size: int, body: Iterator[bytes]) -> Entry:
        """Make a POST call whose body, of ``size`` bytes, is made while it is sent."""
        timeout = httpx2.Timeout(_SEND_SECONDS)
        return self._entry("POST", call, content=body, headers=_json(size), timeout=timeout)

    def lifted(self, call: str, spool: IO[bytes], **query: str) -> Lifted:
        """Make a GET call whose answer holds files; they go into ``spool``."""
        timeout = httpx2.Timeout(_SEND_SECONDS)
        with self._answered("GET", call, params=query, timeout=timeout) as response:
            lifter, read = Lifter(spool), 0
            for piece in response.iter_raw():
                read += len(piece)
                if read > _MAX_BODY_BYTES:
                    raise TooLarge(limit=_MAX_BODY_BYTES)
                try:
                    lifter.feed(piece)
                except OSError as error:
                    raise StorageFull("site.disk_full") from error
            return lifter.end()

    def _entry(self, method: str, call: str, **how: Any) -> Entry:
        with self._answered(method, call, **how) as response:
            body = bytearray()
            for piece in response.iter_raw():
                body += piece
                if len(body) > _MAX_ANSWER_BYTES:
                    raise TooLarge(limit=_MAX_ANSWER_BYTES)
        try:
            answer = msgspec.json.decode(bytes(body), type=_Answer)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise _strange(response.status_code) from error
        entry = answer.errors[0]
        entry.accept_id = entry.accept_id or answer.accept_id
        return entry

    @contextmanager
    def _answered(self, method: str, call: str, **how: Any) -> Iterator[httpx2.Response]:
        try:
            with self._client.stream(method, call, **how) as response:
                self._heard(f"{method} {call}: {response.status_code}")
                if response.status_code in (401, 403):
                    raise Unauthenticated
                if response.status_code >= 500:
                    raise Unavailable("broker.gateway", status=response.status_code)
                yield response
        except httpx2.RequestError as error:
            raise error_from(error) from error


def _strange(status: int) -> Unreachable:
    return Unreachable("broker.strange_answer", status=status)


def _json(size: int) -> dict[str, str]:
    return {"Content-Type": "application/json", "Content-Length": str(size)}
