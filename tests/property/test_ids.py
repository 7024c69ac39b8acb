"""Ids: sortable, safe in paths and argument vectors, and never taken for names."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.domain import ids
from sekisho.domain.errors import UsageError
from sekisho.domain.ids import check_command, check_job_id, check_site, check_user, make_id

TIMES = st.integers(0, (1 << 48) - 1)
ENTROPY = st.binary(min_size=ids.ENTROPY_BYTES, max_size=ids.ENTROPY_BYTES)
WORDS = st.text(max_size=70) | st.text(alphabet="abZ09._@-/ \n", max_size=70)


@given(TIMES, ENTROPY)
def test_an_id_is_of_its_form(at_ms: int, entropy: bytes) -> None:
    """Kills: an alphabet or a length that the pattern does not know."""
    made = make_id("job", at_ms=at_ms, entropy=entropy)
    assert check_job_id(made) == made


@given(TIMES, TIMES, ENTROPY, ENTROPY)
def test_ids_sort_by_the_time_of_their_making(
    one_ms: int, other_ms: int, one: bytes, other: bytes
) -> None:
    """Kills: digits in the wrong order; entropy before time."""
    if one_ms != other_ms:
        made = (
            make_id("job", at_ms=one_ms, entropy=one),
            make_id("job", at_ms=other_ms, entropy=other),
        )
        assert (made[0] < made[1]) == (one_ms < other_ms)


@given(TIMES, ENTROPY, ENTROPY)
def test_two_ids_of_one_moment_differ_when_their_entropy_does(
    at_ms: int, one: bytes, other: bytes
) -> None:
    """Kills: bits of entropy that are dropped."""
    same = make_id("job", at_ms=at_ms, entropy=one) == make_id("job", at_ms=at_ms, entropy=other)
    assert same == (one == other)


@given(TIMES, ENTROPY, WORDS)
def test_no_id_is_a_name_and_no_name_is_an_id(at_ms: int, entropy: bytes, word: str) -> None:
    """Kills: an underscore in the pattern of a name."""
    made = make_id("job", at_ms=at_ms, entropy=entropy)
    for check in (check_site, check_user, check_command):
        with pytest.raises(UsageError):
            check(made)
        try:
            name = check(word)
        except UsageError:
            continue
        with pytest.raises(UsageError):
            check_job_id(name)


@given(WORDS)
def test_what_is_a_name_is_safe_in_a_path_and_in_an_argument(word: str) -> None:
    """Kills: a name that begins with a dash or a dot, holds a slash or ends with a line break."""
    for check in (check_site, check_user, check_command):
        try:
            name = check(word)
        except UsageError:
            continue
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.@-]*", name)
        assert ".." not in (name[:2], name)


@pytest.mark.parametrize("length", [0, 9, 11])
def test_the_entropy_has_its_length(length: int) -> None:
    with pytest.raises(ValueError, match=str(length)):
        make_id("job", at_ms=0, entropy=bytes(length))


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (check_job_id, "job_" + "0" * 25),
        (check_job_id, "job_" + "0" * 27),
        (check_job_id, "job_" + "0" * 26 + "\n"),
        (check_job_id, "JOB_" + "0" * 26),
        (check_job_id, "job_" + "i" * 26),
        (check_job_id, "tok_" + "0" * 26),
        (check_site, ""),
        (check_site, "Steel"),
        (check_site, "1steel"),
        (check_site, "a" * 41),
        (check_site, "../x"),
        (check_site, "steel\n"),
        (check_user, "-ann"),
        (check_user, ".ann"),
        (check_user, "ann/bob"),
        (check_user, "a" * 65),
        (check_command, "solve it"),
        (check_command, "rm;ls"),
        (check_command, "--help"),
    ],
)
def test_what_is_no_name_is_refused_and_shown_in_part(check: object, text: str) -> None:
    assert callable(check)
    with pytest.raises(UsageError) as refusal:
        check(text * 1)
    assert refusal.value.code == "name.invalid"
    assert len(str(refusal.value.params["name"])) <= 80
