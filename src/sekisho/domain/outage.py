"""How often what fails again and again is spoken of: at once, then ever more seldom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FIRST_SILENCE_SECONDS: Final = 60.0
MAX_SILENCE_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """Tries in a row that failed. Times are those of a monotonic clock, in seconds."""

    since: float
    tries: int = 1
    speaks: bool = True  #: whether the last failure is worth a word
    reasons: frozenset[str]  #: the codes that were spoken of
    silence_s: float = FIRST_SILENCE_SECONDS
    quiet_until: float


def failed(before: Outage | None, code: str, now: float) -> Outage:
    """Return the outage that a failure begins or prolongs.

    Spoken of is the first failure, every code when it is new, and else one after a minute, two,
    four, and so on, an hour at most.
    """
    if before is None:
        until = now + FIRST_SILENCE_SECONDS
        return Outage(since=now, reasons=frozenset({code}), quiet_until=until)
    due = now >= before.quiet_until
    silence = min(2 * before.silence_s, MAX_SILENCE_SECONDS) if due else before.silence_s
    return Outage(
        since=before.since,
        tries=before.tries + 1,
        speaks=due or code not in before.reasons,
        reasons=before.reasons | {code},
        silence_s=silence,
        quiet_until=now + silence if due else before.quiet_until,
    )
