"""Requests to a broker that survive a bad line.

Every request of the protocol may be repeated, so every one is: with full-jitter backoff capped at
60 s, for as long as the caller's patience lasts. Errors leave as those of `sekisho.domain.errors`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar

import msgspec

from sekisho.adapters.http_problem import MAX_PROBLEM_BYTES, error_of
from sekisho.adapters.http_sender import Answer, Call, Sender
from sekisho.adapters.part_size import PartSize
from sekisho.adapters.patience import Patience, Pauses, Repeats
from sekisho.adapters.throttle import Throttle
from sekisho.domain.errors import SekishoError, Unreachable

T = TypeVar("T")
BYTES: Final = "application/octet-stream"


def message(method: str, path: str, content: msgspec.Struct) -> Call:
    """Return the request that carries ``content`` as JSON."""
    return Call(method=method, path=path, body=msgspec.json.encode(content))


class HttpLine:
    """Sends requests below one broker's URL. Safe to share between threads.

    ``max_mbit_s`` bounds what goes each way.
    """

    def __init__(
        self,
        sender: Sender,
        patience: Patience | None = None,
        max_mbit_s: float | None = None,
    ) -> None:
        self._sender = sender
        self._up, self._down = Throttle(max_mbit_s), Throttle(max_mbit_s)
        self._repeats = Repeats(patience or Patience())
        self._date = ""
        self.part_size = PartSize()  #: what bodies this line has been seen to bear

    def pauses(self, limit_s: float | None = None) -> Pauses:
        """Return the pauses for one piece of work, bounded by ``limit_s`` as well."""
        return self._repeats.pauses(limit_s)

    @property
    def patience(self) -> Patience:
        return self._repeats.patience

    @property
    def date(self) -> datetime | None:
        """The other side's clock, as of its last answer."""
        return _date(self._date)

    def close(self) -> None:
        self._sender.close()

    def ask(self, call: Call, kind: type[T], *, limit_s: float | None = None) -> T:
        """Send ``call`` until it gets through; return the answer as ``kind``."""
        return decoded(self.send(call, limit_s=limit_s), kind)

    def send(self, call: Call, *, limit_s: float | None = None) -> bytes:
        """Send ``call`` until it gets through; return the body of the answer."""
        return self._repeats.until_through(lambda: self.send_once(call), limit_s)

    def send_once(self, call: Call) -> bytes:
        """Send ``call`` and return the body of the answer, or raise what became of it."""
        with self._answer(call) as answer:
            return Answer(answer.status, answer.headers, self._down.counted(answer.pieces)).whole()

    @contextmanager
    def stream(self, call: Call) -> Iterator[Iterator[bytes]]:
        """Send ``call`` once, and give its successful answer piece by piece."""
        with self._answer(call) as answer:
            yield self._down.counted(answer.pieces)

    @contextmanager
    def _answer(self, call: Call) -> Iterator[Answer]:
        with self._sender.answer(self._slowed(call)) as answer:
            self._repeats.heard()
            self._date = answer.header("date") or self._date
            if not answer.good:
                raise _problem(answer)
            yield answer

    def _slowed(self, call: Call) -> Call:
        if not isinstance(call.body, bytes):
            return call
        body = self._up.pieces(call.body)
        return call if body is call.body else replace(call, body=body, size=len(call.body))


def decoded(body: bytes, kind: type[T]) -> T:
    """Return ``body`` as ``kind``; whoever answers something else is not a broker."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unreachable("broker.strange_answer", status=200) from error


def _date(text: str) -> datetime | None:
    """Return the moment that a header tells; none that does not say of which zone it speaks."""
    try:
        told = parsedate_to_datetime(text) if text else None
    except (ValueError, OverflowError):
        return None
    return told if told is not None and told.tzinfo is not None else None


def _problem(answer: Answer) -> SekishoError:
    body = bytearray()
    for piece in answer.pieces:
        body += piece
        if len(body) > MAX_PROBLEM_BYTES:
            break
    return error_of(answer.status, bytes(body), answer.header("retry-after"))
