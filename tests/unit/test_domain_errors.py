"""The tree of errors is drawn once, in its module, and is true."""

import re
from collections.abc import Iterator

import pytest

from sekisho.domain import errors
from sekisho.domain.errors import Refused, SekishoError

ROW = re.compile(
    r"(?P<tree>[ │├└─]*)(?P<name>\w+) +"
    r"(?P<code>[a-z_.]+) +(?P<exit>\d+) +(?P<http>\d+)(?P<rest>.*)"
)


def drawn() -> Iterator[tuple[str, str, int, int, bool, int]]:
    """Name, code, exit, http, retryable and depth of every row of the drawing."""
    for line in (errors.__doc__ or "").splitlines():
        if row := ROW.fullmatch(line):
            retryable = row["rest"].strip().startswith("retryable")
            depth = len(row["tree"]) // 4 - 1
            yield row["name"], row["code"], int(row["exit"]), int(row["http"]), retryable, depth


def written(kind: type[SekishoError] = SekishoError) -> Iterator[type[SekishoError]]:
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from written(child)


def test_every_error_is_in_the_drawing_with_its_code_and_statuses() -> None:
    assert {row[:5] for row in drawn()} == {
        (k.__name__, k.code, k.exit_status, k.http_status, k.retryable) for k in written()
    }


def test_the_drawing_shows_who_descends_from_whom() -> None:
    above: list[str] = ["SekishoError"]
    for name, *_, depth in drawn():
        above[depth:] = [name]
        assert getattr(errors, name).__bases__[0].__name__ == above[depth - 1], name


def test_codes_are_stable_words_and_no_two_kinds_share_one() -> None:
    codes = [kind.code for kind in written()]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z_]+(\.[a-z_]+)?", code) for code in codes)


def test_an_error_of_a_job_itself_is_not_an_exit_status_of_ours() -> None:
    assert {0, 1, 2} & {kind.exit_status for kind in written()} == set()


def test_a_finer_code_replaces_that_of_the_kind() -> None:
    error = Refused("command.unknown", command="solve")
    assert (error.code, Refused.code) == ("command.unknown", "refused")
    assert (str(error), str(Refused())) == ("command.unknown {'command': 'solve'}", "refused")


@pytest.mark.parametrize("kind", list(written()), ids=lambda kind: kind.__name__)
def test_every_kind_says_what_has_happened(kind: type[SekishoError]) -> None:
    assert kind.__doc__
    assert not kind.__doc__.startswith(kind.__name__ + "(")
