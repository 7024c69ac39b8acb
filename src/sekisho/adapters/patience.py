"""Trying again: full-jitter backoff capped at 60 s, for as long as the caller's patience lasts."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from sekisho.domain.backoff import delay
from sekisho.domain.errors import SekishoError, Unavailable

MAX_RETRY_AFTER_SECONDS: Final = 60.0
#: Asking again will not help: somebody has to change something.
_HOPELESS: Final = frozenset(
    {"broker.tls", "broker.strange_answer", "broker.proxy_login", "broker.proxy_refused"}
)
_DICE: Final = random.SystemRandom()


def pause_asked_by(error: SekishoError) -> float:
    """Return the seconds that the other side asks to wait, within reason."""
    asked = error.params.get("retry_after_s")
    return min(float(asked), MAX_RETRY_AFTER_SECONDS) if isinstance(asked, int | float) else 0.0


#: Told of each pause: why, and for how many seconds; of no error, when the line is back.
OnPause: TypeAlias = Callable[[SekishoError | None, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to repeat a request that did not get through. None: for ever.

    Until a line has been answered once, ``first_s`` counts as well: an address that never
    answered is likely wrong, one that did will be back. ``wait`` pauses for seconds and says
    whether to stop.
    """

    limit_s: float | None = None
    first_s: float | None = None
    wait: Callable[[float], bool] = field(default_factory=lambda: threading.Event().wait)
    monotonic: Callable[[], float] = time.monotonic
    on_pause: OnPause = lambda _error, _seconds: None


class Pauses:
    """The growing pauses between the attempts of one piece of work."""

    def __init__(self, patience: Patience, limit_s: float | None) -> None:
        self._patience = patience
        self._end = None if limit_s is None else patience.monotonic() + limit_s
        self._failures = 0

    def progressed(self) -> None:
        """Something got through: begin again with short pauses."""
        if self._failures:
            self._patience.on_pause(None, 0.0)
        self._failures = 0

    def after(self, error: SekishoError) -> None:
        """Pause after ``error``, or raise it when it is no use, or no time, to try again.

        After one before which something got through, the pauses are short again.
        """
        if not isinstance(error, Unavailable) or error.code in _HOPELESS:
            raise error
        self._failures = 1 if error.advanced else self._failures + 1
        seconds = max(delay(self._failures, _DICE.random()), pause_asked_by(error))
        if self._end is not None and self._patience.monotonic() + seconds > self._end:
            raise error
        self._patience.on_pause(error, seconds)
        if self._patience.wait(seconds):
            raise error
