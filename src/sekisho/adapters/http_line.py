"""Requests to a broker that survive a bad line.

Every request of the protocol may be repeated, so every one is: with full-jitter backoff capped at
60 s, for as long as the caller's patience lasts. Errors leave as those of `sekisho.domain.errors`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar

import httpx2
import msgspec

from sekisho.adapters.http_client import CONNECT_SECONDS, READ_SECONDS
from sekisho.adapters.http_problem import MAX_PROBLEM_BYTES, error_from, error_of
from sekisho.adapters.part_size import PartSize
from sekisho.adapters.patience import Patience, Pauses
from sekisho.adapters.throttle import Throttle
from sekisho.domain.errors import SekishoError, TooLarge, Unreachable

T = TypeVar("T")
JSON: Final = "application/json"
BYTES: Final = "application/octet-stream"
MAX_ANSWER_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request. ``read_s`` is how long the other side may be silent."""

    method: str
    path: str
    body: bytes = b""
    content_type: str = JSON
    query: Mapping[str, str] | None = None
    read_s: float = READ_SECONDS


def message(method: str, path: str, content: msgspec.Struct) -> Call:
    """Return the request that carries ``content`` as JSON."""
    return Call(method=method, path=path, body=msgspec.json.encode(content))


class HttpLine:
    """Sends requests below one broker's URL. Safe to share between threads.

    ``max_mbit_s`` bounds what goes each way.
    """

    def __init__(
        self,
        client: httpx2.Client,
        patience: Patience | None = None,
        max_mbit_s: float | None = None,
    ) -> None:
        self._client = client
        self._up, self._down = Throttle(max_mbit_s), Throttle(max_mbit_s)
        self._answered = False
        self.date: datetime | None = None  #: the other side's clock, as of its last answer
        self.patience = patience or Patience()
        self.part_size = PartSize()  #: what bodies this line has been seen to bear

    def pauses(self, limit_s: float | None = None) -> Pauses:
        """Return the pauses for one piece of work, bounded by ``limit_s`` as well."""
        first_s = None if self._answered else self.patience.first_s
        limits = [s for s in (limit_s, self.patience.limit_s, first_s) if s is not None]
        return Pauses(self.patience, min(limits, default=None))

    def close(self) -> None:
        self._client.close()

    def ask(self, call: Call, kind: type[T], *, limit_s: float | None = None) -> T:
        """Send ``call`` until it gets through; return the answer as ``kind``."""
        return decoded(self.send(call, limit_s=limit_s), kind)

    def send(self, call: Call, *, limit_s: float | None = None) -> bytes:
        """Send ``call`` until it gets through; return the body of the answer."""
        pauses = self.pauses(limit_s)
        while True:
            try:
                return self.send_once(call)
            except SekishoError as error:
                pauses.after(error)

    def send_once(self, call: Call) -> bytes:
        """Send ``call`` and return the body of the answer, or raise what became of it."""
        with self.stream(call) as pieces:
            return _joined(pieces)

    @contextmanager
    def stream(self, call: Call) -> Iterator[Iterator[bytes]]:
        """Send ``call`` once, and give its successful answer piece by piece."""
        request = self._client.build_request(
            call.method,
            call.path,
            content=self._up.pieces(call.body),
            params=call.query,
            headers=_headers(call),
            timeout=httpx2.Timeout(call.read_s, connect=CONNECT_SECONDS),
        )
        try:
            response = self._client.send(request, stream=True)
            self._answered = True
            self.date = _date(response.headers.get("date")) or self.date
            try:
                if not response.is_success:
                    raise _problem(response)
                yield self._down.counted(response.iter_raw())
            finally:
                response.close()
        except httpx2.RequestError as error:
            raise error_from(error) from error


def decoded(body: bytes, kind: type[T]) -> T:
    """Return ``body`` as ``kind``; whoever answers something else is not a broker."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unreachable("broker.strange_answer", status=200) from error


def _headers(call: Call) -> dict[str, str]:
    length = {"Content-Length": str(len(call.body))}
    return {"Content-Type": call.content_type, **length} if call.body else {}


def _date(text: str | None) -> datetime | None:
    try:
        return None if text is None else parsedate_to_datetime(text)
    except ValueError:
        return None


def _problem(response: httpx2.Response) -> SekishoError:
    body = bytearray()
    for piece in response.iter_raw():
        body += piece
        if len(body) > MAX_PROBLEM_BYTES:
            break
    return error_of(response.status_code, bytes(body), response.headers)


def _joined(pieces: Iterator[bytes]) -> bytes:
    body = bytearray()
    for piece in pieces:
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            raise TooLarge(limit=MAX_ANSWER_BYTES)
    return bytes(body)
