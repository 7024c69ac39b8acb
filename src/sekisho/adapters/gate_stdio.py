"""The gate's conversation over two byte streams: one call at a time, until the caller is gone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec
import structlog

from sekisho.domain.errors import SekishoError, SyncFailed, Unreachable, UsageError
from sekisho.site.gate import Gate
from sekisho.wire.frames import pack_digests, packed, unpack_chunks, unpack_digests
from sekisho.wire.stdio import (
    DATA,
    END,
    MESSAGE,
    PROBLEM,
    Answer,
    Call,
    Garbled,
    Packets,
    ProblemSent,
    decoded,
    encoded,
)
from sekisho.wire.v1 import Done, Message, OpenDraft, Problem, SubmitJob

log = structlog.get_logger()
_MAX_LIST_BYTES: Final = 1 << 20
_MAX_TEXT: Final = 300
#: So much of what is in vain anyway is heard.
_MAX_HEARD_BYTES: Final = 64 << 20


class GateStdio:
    """Serves ``gate`` on ``packets``. A call that breaks the form of the protocol ends it."""

    def __init__(self, gate: Gate, packets: Packets) -> None:
        self._gate = gate
        self._packets = packets
        self._plain: dict[str, Callable[[Call], Message]] = {
            "identity": lambda _: gate.identity(),
            "open": lambda c: gate.open(decoded(c.body, OpenDraft)),
            "submit": lambda c: gate.submit(decoded(c.body, SubmitJob)),
            "start": lambda c: gate.start(_job(c)),
            "view": lambda c: gate.view(_job(c), c.version, c.wait_s),
            "snapshot": lambda c: gate.snapshot(_job(c)),
            "cancel": lambda c: gate.cancel(_job(c)),
            "received": lambda c: gate.received(_job(c)),
            "jobs": lambda c: gate.jobs(c.after),
        }
        self._with_data: dict[str, Callable[[Call], None]] = {
            "missing": self._missing,
            "put": self._put,
            "fetch": self._fetch,
        }

    def serve(self) -> None:
        """Answer calls until the caller ends; raise SekishoError when the protocol is broken."""
        while (packet := self._packets.receive()) is not None:
            kind, payload = packet
            if kind != MESSAGE:
                raise UsageError("message.invalid", why="order")
            self._answer(decoded(payload, Call))
            self._packets.flush()

    def _answer(self, call: Call) -> None:
        try:
            if call.verb in self._with_data:
                self._with_data[call.verb](call)
            else:
                self._say(self._plain[call.verb](call))
        except (SyncFailed, Garbled, Unreachable):
            raise
        except ProblemSent as end:  # no verb's data may end so
            raise Garbled(why="order") from end
        except SekishoError as error:
            log.info("call_refused", verb=call.verb, code=error.code)
            self._packets.send(MESSAGE, encoded(Answer(problem=problem_of(error))))

    def _say(self, message: Message) -> None:
        self._packets.send(MESSAGE, encoded(Answer(body=msgspec.Raw(encoded(message)))))

    def _missing(self, call: Call) -> None:
        body = _bounded(self._packets.data())
        digests = self._gate.missing(_job(call), unpack_chunks(body))
        self._say(Done())
        self._send_data([(pack_digests(digests),)])

    def _put(self, call: Call) -> None:
        pieces = self._packets.data()
        try:
            self._gate.put(_job(call), pieces)
        except SekishoError:
            self._hear_out(pieces)
            raise
        self._say(Done())

    @staticmethod
    def _hear_out(pieces: Iterator[bytes]) -> None:
        """Read what the caller still says: it hears the answer only afterwards."""
        left = _MAX_HEARD_BYTES
        for piece in pieces:
            left -= len(piece) + 1
            if left < 0:
                raise Garbled(why="length")

    def _fetch(self, call: Call) -> None:
        digests = unpack_digests(_bounded(self._packets.data()))
        chunks = self._gate.fetch(_job(call), digests)
        self._say(Done())
        self._send_data(packed(digest, data).pieces() for digest, data in chunks)

    def _send_data(self, data: Iterable[tuple[bytes, ...]]) -> None:
        try:
            for pieces in data:
                self._packets.send(DATA, *pieces)
        except SyncFailed:
            raise
        except SekishoError as error:
            self._packets.send(PROBLEM, encoded(problem_of(error)))
        else:
            self._packets.send(END)


def turn_away(packets: Packets, error: SekishoError) -> None:
    """Answer one call with ``error`` and swallow its data; the next call needs a new gate."""
    answered = False
    while (packet := packets.receive()) is not None:
        if packet[0] != MESSAGE:
            continue
        if answered:
            return
        packets.send(MESSAGE, encoded(Answer(problem=problem_of(error))))
        packets.flush()
        answered = True


def _job(call: Call) -> str:
    if call.job is None:
        raise UsageError("message.invalid", why="job")
    return call.job


def _bounded(pieces: Iterable[bytes]) -> bytes:
    body = bytearray()
    for piece in pieces:
        body += piece
        if len(body) > _MAX_LIST_BYTES:
            raise UsageError("message.invalid", why="length")
    return bytes(body)


def problem_of(error: SekishoError) -> Problem:
    """Return what may be told of ``error``: its code, and its plain parameters."""
    params: dict[str, str | int | float | bool | list[str] | None] = {
        name: value if isinstance(value, int | float) else str(value)[:_MAX_TEXT]
        for name, value in error.params.items()
    }
    return Problem(
        type=f"urn:sekisho:{error.code}", status=error.http_status, code=error.code, params=params
    )
