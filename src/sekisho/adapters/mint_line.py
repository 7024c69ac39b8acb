"""Requests to an old MInt broker, and to ours below its old paths. Nothing is retried here.

Answers are bounded: a plain one in memory, one with files in a spool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import IO, Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from sekisho.adapters.http_client import Address, base_url, sender
from sekisho.adapters.http_sender import Answer, Call
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
        below = base_url(address.url) + BASE_PATH.lstrip("/")
        self._sender = sender(replace(address, url=below))

    def close(self) -> None:
        self._sender.close()

    def ask(self, call: str, **query: str) -> Entry:
        """Make a GET call."""
        return self._entry(Call(method="GET", path=call, query=query))

    def say(self, call: str, message: Mapping[str, Any]) -> Entry:
        """Make a POST call."""
        return self._entry(Call(method="POST", path=call, body=msgspec.json.encode(message)))

    def send(self, call: str, size: int, body: Iterator[bytes]) -> Entry:
        """Make a POST call whose body, of ``size`` bytes, is made while it is sent."""
        sent = Call(method="POST", path=call, body=body, size=size, read_s=_SEND_SECONDS)
        return self._entry(sent)

    def lifted(self, call: str, spool: IO[bytes], **query: str) -> Lifted:
        """Make a GET call whose answer holds files; they go into ``spool``."""
        asked = Call(method="GET", path=call, query=query, read_s=_SEND_SECONDS)
        with self._answer(asked) as answer:
            lifter, read = Lifter(spool), 0
            for piece in answer.pieces:
                read += len(piece)
                if read > _MAX_BODY_BYTES:
                    raise TooLarge(limit=_MAX_BODY_BYTES)
                try:
                    lifter.feed(piece)
                except OSError as error:
                    raise StorageFull("site.disk_full") from error
            return lifter.end()

    def _entry(self, call: Call) -> Entry:
        with self._answer(call) as answer:
            body = answer.whole(_MAX_ANSWER_BYTES)
        try:
            told = msgspec.json.decode(body, type=_Answer)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Unreachable("broker.strange_answer", status=answer.status) from error
        entry = told.errors[0]
        entry.accept_id = entry.accept_id or told.accept_id
        return entry

    @contextmanager
    def _answer(self, call: Call) -> Iterator[Answer]:
        with self._sender.answer(call) as answer:
            self._heard(f"{call.method} {call.path}: {answer.status}")
            if answer.status in (401, 403):
                raise Unauthenticated
            if answer.status >= 500:
                raise Unavailable("broker.gateway", status=answer.status)
            yield answer
