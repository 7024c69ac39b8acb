"""What the records of an array's elements prove, for every way in which some may be missing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sekisho.adapters.schedulers.traces import ArrayTraces, element_token, ranges
from sekisho.site.scheduler import Exited, Gone, NotStarted

TOKEN = "token-0123"
#: What one element left: the letter of its latch, and the exit code in its record, if there is one.
LEFT = st.tuples(st.sampled_from("mfrt"), st.none() | st.integers(0, 255))


def record(number: int, code: int, token: str = TOKEN) -> str:
    return f"exit {element_token(token, str(number))} {code} {1000 + number} {2000 + number} ."


def a_look(left: list[tuple[str, int | None]], token: str = TOKEN) -> ArrayTraces:
    exits = [record(n, code, token) for n, (_, code) in enumerate(left) if code is not None]
    return ArrayTraces("".join(latch for latch, _ in left), tuple(sorted(exits)))


def numbers_of(text: str) -> list[int]:
    spans = [span.partition("-") for span in text.split(",") if span]
    return [n for a, _, b in spans for n in range(int(a), int(b or a) + 1)]


@given(st.lists(LEFT, min_size=1, max_size=12))
def test_an_array_has_ended_when_every_element_has_and_fails_by_the_first(
    left: list[tuple[str, int | None]],
) -> None:
    """Kills: `all` for `any`; the last failure for the first; a record without its latch."""
    end = a_look(left).end(TOKEN)
    codes = [code for latch, code in left if latch == "t" and code is not None]
    if len(codes) < len(left):
        assert end is None
        return
    assert isinstance(end, Exited)
    failed = [n for n, code in enumerate(codes) if code]
    assert end.exit.code == (codes[failed[0]] if failed else 0)
    assert (end.part is not None) == bool(failed)
    assert end.part is None or numbers_of(end.part.failed) == failed
    assert (end.exit.started_at.timestamp(), end.exit.ended_at.timestamp()) == (
        1000,
        1999 + len(left),
    )


@given(st.lists(LEFT, min_size=1, max_size=12))
def test_each_element_without_an_end_is_lost_or_was_never_started(
    left: list[tuple[str, int | None]],
) -> None:
    """Kills: a missing directory taken for one that was never started."""
    fate = a_look(left).fate(TOKEN, None)
    unstarted = [n for n, (latch, _) in enumerate(left) if latch in "rf"]
    lost = [
        n for n, (latch, code) in enumerate(left) if latch == "m" or (latch, code) == ("t", None)
    ]
    if len(unstarted) == len(left):
        assert fate == NotStarted(None)
        return
    assert isinstance(fate, Gone)
    assert fate.part is not None
    assert fate.part.count == len(left)
    assert (numbers_of(fate.part.lost), numbers_of(fate.part.unstarted)) == (lost, unstarted)


@given(st.lists(LEFT, min_size=1, max_size=6), st.sampled_from(["other-token", TOKEN + "-1", "x"]))
def test_records_with_another_token_count_for_nothing(
    left: list[tuple[str, int | None]], token: str
) -> None:
    assert a_look(left, token).end(TOKEN) is None


@given(st.sets(st.integers(0, 9_999), max_size=400))
def test_ranges_name_every_number_and_stay_short(numbers: set[int]) -> None:
    text = ranges(sorted(numbers))
    told = numbers_of(text.removesuffix("...").removesuffix(","))
    if text.endswith("..."):
        assert len(text) <= 124
        assert told == sorted(numbers)[: len(told)]
    else:
        assert told == sorted(numbers)


def test_a_record_of_one_element_is_none_of_another() -> None:
    """Nor one with a number that is written in another way."""
    twice = ArrayTraces("tt", (record(1, 0), record(1, 0)))
    assert twice.end(TOKEN) is None
    odd = ArrayTraces("t", (record(0, 0).replace("-0 ", "-00 ", 1),))
    assert odd.end(TOKEN) is None


def test_ranges_are_compressed() -> None:
    assert ranges([3, 5, 6, 7, 9]) == "3,5-7,9"
    assert ranges([]) == ""
    assert ranges([0]) == "0"
    assert ranges(range(10_000)) == "0-9999"
