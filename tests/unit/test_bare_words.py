"""From a request to the words of a bare site's program, and to the line of shell they travel in."""

from __future__ import annotations

import getpass

import pytest

from sekisho.adapters.bare_record import submitter, written
from sekisho.adapters.hosts.quote import MAX_LINE_BYTES, quoted
from sekisho.compose.bare import program
from sekisho.domain.errors import TooLarge, UsageError
from sekisho.domain.manifest import bind


@pytest.mark.parametrize(
    ("value", "word"), [(True, "true"), (False, "false"), (3, "3"), (0.5, "0.5"), ("a b", "a b")]
)
def test_a_value_is_written_as_every_program_reads_it(value: object, word: str) -> None:
    assert written(value) == word


@pytest.mark.parametrize("value", ["-n", "--area=3", "-", "", "a'b", "日本語"])
def test_a_value_is_one_word_whatever_it_begins_with(value: str) -> None:
    """Nobody there has a manifest: what an option is, the program that was agreed on decides."""
    command = program("solve", ["/opt/solve", "--name={name}", "{name}"])
    assert bind(command, {"name": value}) == ("/opt/solve", f"--name={value}", value)


def test_a_word_is_quoted_for_sh_and_for_fish() -> None:
    """A backslash between quotes is itself in sh, and not in fish."""
    assert quoted(["it's", "a\\b", "$x `y`"]) == r"""'it'\''s' 'a'\\'b' '$x `y`'"""


def test_a_line_that_no_host_would_take_is_not_sent() -> None:
    room = MAX_LINE_BYTES - len("''")
    assert len(quoted(["x" * room])) == MAX_LINE_BYTES
    with pytest.raises(TooLarge):
        quoted(["x" * (room + 1)])
    with pytest.raises(TooLarge):
        quoted(["字" * (room // 2)])
    with pytest.raises(UsageError):
        quoted(["a\0b"])


@pytest.mark.parametrize(("login", "told"), [("taro", "taro"), ("DOM\\taro yamada", "unknown")])
def test_a_login_that_is_no_name_of_ours_is_not_told(
    monkeypatch: pytest.MonkeyPatch, login: str, told: str
) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: login)
    assert submitter() == told
