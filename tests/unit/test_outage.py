"""How often a line that does not answer is spoken of."""

from __future__ import annotations

from itertools import pairwise

from sekisho.domain.outage import MAX_SILENCE_SECONDS, Outage, failed

DAY = 86_400


def spoken(tries: list[tuple[float, str]]) -> list[float]:
    """Return the times of ``tries`` that were worth a word."""
    outage: Outage | None = None
    told = []
    for at, code in tries:
        outage = failed(outage, code, at)
        if outage.speaks:
            told.append(at)
    assert outage is not None
    assert (outage.since, outage.tries) == (tries[0][0], len(tries))
    return told


def test_the_first_failure_is_told_then_ever_more_seldom_an_hour_at_most() -> None:
    """Kills: a line for each try; silence for good; pauses that grow without bound."""
    told = spoken([(float(at), "broker.proxy") for at in range(0, DAY, 10)])
    gaps = [later - sooner for sooner, later in pairwise(told)]
    assert gaps[:4] == [60, 120, 240, 480]
    assert max(gaps) == MAX_SILENCE_SECONDS == gaps[-1]
    assert len(told) < 40


def test_a_new_reason_is_told_at_once_and_two_in_turn_are_not_told_for_ever() -> None:
    codes = ["broker.proxy", "broker.unreachable"]
    told = spoken([(float(at), codes[at % 2]) for at in range(50)])
    assert told == [0, 1]
