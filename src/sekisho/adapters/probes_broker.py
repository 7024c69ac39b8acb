"""Asking a broker what only it can tell: who we are to it, what time it is, what the path bears."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sekisho import __version__
from sekisho.adapters.http_line import BYTES, HttpLine
from sekisho.adapters.http_sender import Call
from sekisho.domain.errors import SekishoError, Unavailable, Unreachable
from sekisho.domain.limits import MAX_PART_BYTES
from sekisho.site.check import (
    IDLE_SECONDS,
    Finding,
    fault,
    found,
    judge_clock,
    judge_identity,
    judge_idle,
    judge_version,
    ok,
)
from sekisho.wire.v1 import Identity

_ANSWER_SECONDS: Final = 30.0
#: What comes back when a silent connection was cut by somebody on the way.
_GATEWAY_TIMEOUTS: Final = frozenset({502, 503, 504})
_SMALLEST_BODY: Final = 16 << 10


@dataclass(frozen=True, slots=True)
class BrokerProbe:
    """Checks by requests, sent once each. ``site`` is the manifest's name, if it could be read."""

    line: HttpLine
    site: str | None

    def identity(self) -> Iterator[Finding]:
        """Check token, clock and version, by one answer."""
        asked_at = datetime.now(UTC)
        try:
            known = self._ask("v1/site", {}, _ANSWER_SECONDS)
        except SekishoError as error:
            yield fault("token", error)
            if self.line.date is not None:  # whoever refused has a clock all the same
                yield judge_clock((asked_at - self.line.date).total_seconds())
            else:
                yield found("clock", "check.not_tried", first="token")
            yield found("version", "check.not_tried", first="token")
            return
        middle = asked_at + (datetime.now(UTC) - asked_at) / 2
        yield judge_identity(known, self.site)
        yield judge_clock((middle - known.at).total_seconds())
        yield judge_version(known.broker_version, __version__)

    def body(self, size: int = MAX_PART_BYTES) -> Finding:
        """Check that a body as large as those of a transfer arrives whole."""
        error = self._refusal_of_body(size)
        if error is None:
            return ok("body", f"{size} bytes")
        passed = size // 2
        while passed >= _SMALLEST_BODY and self._refusal_of_body(passed) is not None:
            passed //= 2
        return found(
            "body",
            "check.body_limited",
            needed=size,
            passed=passed if passed >= _SMALLEST_BODY else 0,
            why=error.code,
        )

    def idle(self, seconds: float = IDLE_SECONDS) -> Finding:
        """Check that a connection may be silent for as long as a long poll is."""
        begun = time.monotonic()
        try:
            self._ask("v1/site/check", {"idle_s": str(seconds)}, seconds * 1.1 + _ANSWER_SECONDS)
        except Unavailable as error:
            cut = isinstance(error, Unreachable) and error.code == "broker.unreachable"
            if cut or error.params.get("status") in _GATEWAY_TIMEOUTS:
                return judge_idle(time.monotonic() - begun)
            return fault("idle", error)
        except SekishoError as error:
            return fault("idle", error)
        return ok("idle", f"{time.monotonic() - begun:.0f} s")

    def _ask(self, path: str, query: dict[str, str], read_s: float) -> Identity:
        return self.line.ask(Call(method="GET", path=path, query=query, read_s=read_s), Identity)

    def _refusal_of_body(self, size: int) -> SekishoError | None:
        body = os.urandom(size)  # nothing on the way can make it smaller
        call = Call(method="POST", path="v1/site/check", body=body, content_type=BYTES)
        try:
            self.line.ask(call, Identity)
        except SekishoError as error:
            return error
        return None
