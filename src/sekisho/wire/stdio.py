"""The protocol over a pair of byte streams: what an HTTP request is elsewhere, is a call here.

    packet = kind (1 byte) | length (4 bytes, big endian) | payload
    call   = M(Call) [D* E]          data only where the verb says so (chunks, digests)
    answer = M(Answer) [D* E | D* P] P: a Problem that ended the data

One call at a time, answered before the next. A reader holds at most one packet; a longer one than
MAX_PACKET_BYTES, an unknown kind or a wrong order ends the conversation.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import IO, Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from sekisho.domain.errors import Unreachable, UsageError
from sekisho.domain.limits import MAX_MESSAGE_BYTES
from sekisho.wire.v1 import JobId, Problem

T = TypeVar("T", bound=Struct)
_HEAD: Final = struct.Struct(">cI")
MAX_PACKET_BYTES: Final = max(MAX_MESSAGE_BYTES, 1 << 20) + 4096
#: What somebody prints begins with no control character; a packet's length is none of these.
_TEXT: Final = re.compile(rb"[\t\n\r\x1b\x20-\x7e\x80-\xff]+")
_PRINTED_BYTES: Final = 1024
MESSAGE: Final = b"M"
DATA: Final = b"D"
END: Final = b"E"
PROBLEM: Final = b"P"
_KINDS: Final = frozenset({MESSAGE, DATA, END, PROBLEM})

Verb = Literal[
    "identity",
    "open",
    "submit",
    "missing",
    "put",
    "start",
    "view",
    "snapshot",
    "cancel",
    "fetch",
    "received",
    "jobs",
]


class Call(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the caller wants. ``body`` is the message of `sekisho.wire.v1` for the verb."""

    verb: Verb
    job: JobId | None = None
    body: Raw = Raw(b"{}")
    version: int | None = None
    wait_s: Annotated[float, Meta(ge=0, le=30)] = 0.0
    after: JobId | None = None


class Answer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The message of the verb, or why there is none."""

    body: Raw = Raw(b"{}")
    problem: Problem | None = None


class Garbled(UsageError):
    """What came is not this protocol; where the next packet would begin is unknown."""

    code = "message.invalid"


class Packets:
    """Reads and writes packets on two binary streams, one of each direction."""

    def __init__(self, incoming: IO[bytes], outgoing: IO[bytes]) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._head = b""

    def send(self, kind: bytes, *payload: bytes) -> None:
        """Write one packet, its payload in any number of pieces; it may wait until `flush`."""
        self._outgoing.write(_HEAD.pack(kind, sum(map(len, payload))))
        for piece in payload:
            self._outgoing.write(piece)

    def flush(self) -> None:
        self._outgoing.flush()

    def receive(self) -> tuple[bytes, bytes] | None:
        """Return the next packet, None at an orderly end; raise Unreachable when it is cut."""
        self._head = head = self._incoming.read(_HEAD.size)
        if not head:
            return None
        if len(head) < _HEAD.size:
            raise Unreachable(why="cut")
        kind, length = _HEAD.unpack(head)
        if kind not in _KINDS:
            raise Garbled(why="kind")
        if length > MAX_PACKET_BYTES:
            raise Garbled(why="length")
        payload = self._incoming.read(length)
        if len(payload) < length:
            raise Unreachable(why="cut")
        return kind, payload

    def printed(self) -> str:
        """Return the text that came where the last packet should begin; none, if it is no text.

        Nothing can be said to the other side after that.
        """
        if not _TEXT.fullmatch(self._head):
            return ""
        self._outgoing.close()
        return (self._head + self._incoming.read(_PRINTED_BYTES)).decode("utf-8", "replace")

    def data(self) -> Iterator[bytes]:
        """Return the payloads of data packets up to the end mark; raise at anything else."""
        while True:
            packet = self.receive()
            if packet is None:
                raise Unreachable(why="cut")
            kind, payload = packet
            if kind == END:
                return
            if kind == PROBLEM:
                raise ProblemSent(decoded(payload, Problem))
            if kind != DATA:
                raise Garbled(why="order")
            yield payload


class ProblemSent(Exception):
    """The other side ended its data with a problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.code)
        self.problem = problem


def decoded(payload: bytes | Raw, kind: type[T]) -> T:
    """Return ``payload`` as ``kind``, or raise UsageError(`message.invalid`)."""
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError("message.invalid", why="form") from error


def encoded(message: Struct) -> bytes:
    return msgspec.json.encode(message)
