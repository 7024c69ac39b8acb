"""Trying again: full-jitter backoff capped at 60 s, for as long as the caller's patience lasts."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias, TypeVar

from sekisho.domain.backoff import delay
from sekisho.domain.errors import SekishoError, Unavailable

T = TypeVar("T")
MAX_RETRY_AFTER_SECONDS: Final = 60.0
#: Asking again will not help: somebody has to change something.
_HOPELESS: Final = frozenset(
    {"broker.tls", "broker.strange_answer", "broker.proxy_login", "broker.proxy_refused"}
)
#: Nor is this likely to pass where nothing was ever heard: a login that prints, a key for else, a
#: place that is not the login's.
_HOPELESS_AT_FIRST: Final = frozenset(
    {"bare.closed", "bare.noisy", "bare.no_shell", "gate.absent", "gate.noisy"}
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
    """The growing pauses between the attempts of one piece of work.

    It may take ``limit_s`` at most, and ``patience.first_s`` until the line was ``heard``.
    """

    def __init__(
        self, patience: Patience, limit_s: float | None, heard: Callable[[], bool] = lambda: True
    ) -> None:
        self._patience = patience
        self._begun = patience.monotonic()
        self._limit_s = limit_s
        self._heard = heard
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
        hopeless = error.code in _HOPELESS or (
            error.code in _HOPELESS_AT_FIRST and not self._heard()
        )
        if hopeless or not isinstance(error, Unavailable):
            raise error
        self._failures = 1 if error.advanced else self._failures + 1
        seconds = max(delay(self._failures, _DICE.random()), pause_asked_by(error))
        if self._patience.monotonic() + seconds > self._begun + self._most_s():
            raise error
        self._patience.on_pause(error, seconds)
        if self._patience.wait(seconds):
            raise error

    def _most_s(self) -> float:
        first_s = None if self._heard() else self._patience.first_s
        limits = (self._limit_s, self._patience.limit_s, first_s)
        return min((s for s in limits if s is not None), default=math.inf)


class Repeats:
    """Work over one line, repeated until it gets through. Safe to share between threads.

    ``explain`` may know a better error for one that came: it is told, and judged, in its place.
    """

    def __init__(
        self,
        patience: Patience,
        explain: Callable[[SekishoError], SekishoError] = lambda error: error,
    ) -> None:
        self.patience = patience
        self._explain = explain
        self._heard = False

    def heard(self) -> None:
        """Note that the other side has answered, whatever it said."""
        self._heard = True

    def pauses(self, limit_s: float | None = None) -> Pauses:
        """Return the pauses for one piece of work, bounded by ``limit_s`` as well."""
        return Pauses(self.patience, limit_s, lambda: self._heard)

    def until_through(self, ask: Callable[[], T], limit_s: float | None = None) -> T:
        """Return what ``ask`` gives once it gets through."""
        pauses = self.pauses(limit_s)
        while True:
            try:
                found = ask()
            except SekishoError as error:
                pauses.after(self._explain(error))
            else:
                self.heard()
                pauses.progressed()
                return found
