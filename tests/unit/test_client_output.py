"""What the command line prints: names that cannot steer a terminal, words in the right language."""

from __future__ import annotations

import errno
import io
import re

import pytest

from sekisho.cli import output
from sekisho.cli.progress import LineReporter, LiveReporter, Reporter, reporter
from sekisho.cli.run import Duration, _inputs
from sekisho.cli.session import Session
from sekisho.cli.site_log import Entry, shown
from sekisho.client.errors import JobRefused
from sekisho.client.result import Result
from sekisho.domain.errors import NotFound, SekishoError, Unavailable, Unreachable, UsageError
from sekisho.i18n.catalogue import LANGUAGES, language, sentence


def session(**changes: object) -> Session:
    return Session(lang="en", out=io.StringIO(), err=io.StringIO(), **changes)  # type: ignore[arg-type]


def printed(at: Session) -> tuple[str, str]:
    assert isinstance(at.out, io.StringIO)
    assert isinstance(at.err, io.StringIO)
    return at.out.getvalue(), at.err.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[2J",
        "\x1b]0;title\x07",
        "\x9b31m",
        "a\rb",
        "a\bb",
        "\u202egpj.exe",
        "\u2066x\u2069",
        "a\u200bb",
        "line\u2028two",
        "a\x00b",
        "\udc9b",
        "\ue000",
    ],
    ids=ascii,
)
def test_nothing_of_others_steers_the_terminal(text: str) -> None:
    at = session()
    output.result(at, f"<{text}>")
    output.note(at, f"<{text}>")
    output.error(at, NotFound("site.not_found", site=text))
    output.columns(at, [(text, "x")])
    shown = "".join(printed(at))
    assert "\N{REPLACEMENT CHARACTER}" in shown
    assert not set("\x1b\x9b\r\b\x00\x07\u202e\u2066\u200b\u2028\udc9b\ue000") & set(shown)


@pytest.mark.parametrize("lines", ["\n", "\r\n", "\v", "\u2028", "\x85"], ids=ascii)
def test_what_the_other_side_says_of_an_error_is_on_no_line_of_its_own(lines: str) -> None:
    """Kills: a site or a broker that makes up lines of ours, a result among them."""
    forged = f"x{lines}error[job.lost]: forged"
    at = session()
    told = Result(
        job="job_1", site="s", state="refused", code=f"no.such{lines}code", params={"why": forged}
    )
    output.error(at, JobRefused(told))
    output.error(at, NotFound("site.not_found", site=forged))
    output.error(at, NotFound("made.up", names=[forged]))
    LineReporter(at).pausing(Unreachable(why=forged), 5)
    lines_told = printed(at)[1].splitlines()
    assert len(lines_told) == 8
    assert not any(line.lstrip().startswith(("error[job.lost]", "code")) for line in lines_told)


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ("--steps", "--steps"),
        ("{steps}", "{steps}"),
        ("計算.txt", "計算.txt"),
        ("", '""'),
        ("two words", '"two words"'),
        ("a, --all", '"a, --all"'),
        ('say "no"', r'"say \"no\""'),
        ("[x]", '"[x]"'),
    ],
)
def test_it_is_seen_where_a_word_begins_and_ends(given: str, seen: str) -> None:
    """Kills: an argument with a space or a comma that is shown as if it were two."""
    assert output.word(given) == seen


def test_the_sites_log_shows_where_an_argument_ends() -> None:
    facts = {"argv": ["/bin/solve", "a, --all"], "code": None}
    body = {"at": "2026-01-01T00:00:00+00:00", "kind": "started", "job": "job_1", "facts": facts}
    assert 'argv=[/bin/solve, "a, --all"] code=-' in shown(Entry(body, "", "taro", "solve"))


def test_ordinary_names_are_shown_as_they_are() -> None:
    assert output.safe("計算標準出力.txt résumé Ω é") == "計算標準出力.txt résumé Ω é"


def test_columns_count_wide_characters_as_two() -> None:
    at = session()
    output.columns(at, [("名前", "x"), ("abcde", "y")])
    assert printed(at)[0] == "名前   x\nabcde  y\n"


def test_an_error_says_its_code_the_sites_reason_and_what_to_do() -> None:
    at = session()
    refused = Result(
        job="job_1", site="s", state="refused", code="command.unknown", params={"command": "c"}
    )
    output.error(at, JobRefused(refused))
    first, second, third, fourth = printed(at)[1].splitlines()
    assert first.startswith("error[job.refused]: The site s refused")
    assert second.startswith("reason[command.unknown]: The site has no command c")
    assert third.startswith("  ")
    assert fourth.startswith("  ")


def test_all_faults_of_a_settings_file_are_listed() -> None:
    at = session()
    output.error(at, SekishoError("config.invalid", faults=["a.toml:1: x: y", "a.toml:2: x: z"]))
    assert "\n  a.toml:1: x: y\n  a.toml:2: x: z\n" in printed(at)[1]


def test_a_silent_session_is_told_nothing_but_results() -> None:
    at = session(quiet=True)
    output.note(at, "note")
    show = reporter(at)
    assert type(show) is Reporter
    show.known("job_1")
    show.sending(10 << 20, 10 << 20)
    show.pausing(Unreachable(why="timeout"), 30)
    output.result(at, "result")
    assert printed(at) == ("result\n", "")


def test_away_from_a_terminal_progress_is_plain_lines() -> None:
    at = session()
    show = reporter(at)
    assert type(show) is LineReporter
    for done in range(11):
        show.sending(done << 20, 10 << 20)
    show.pausing(Unreachable(why="timeout"), 30)
    lines = printed(at)[1].splitlines()
    assert lines[0] == "sending 0.0 of 10.0 MiB"
    assert lines[-2] == "sending 10.0 of 10.0 MiB"
    assert "30 s" in lines[-1]
    assert len(lines) == 3


def test_reading_is_told_when_it_takes_long() -> None:
    at, now = session(), [0.0]
    show = LineReporter(at, lambda: now[0])
    for done in range(11):
        show.reading(done << 20, 10 << 20)
    assert printed(at)[1] == ""
    for done in range(11):
        now[0] += 0.25
        show.reading(done << 20, 10 << 20)
    lines = printed(at)[1].splitlines()
    assert lines[0] == "reading 4.0 of 10.0 MiB"
    assert lines[-1] == "reading 10.0 of 10.0 MiB"
    assert len(lines) == 2


def test_a_line_that_is_away_is_told_once_then_seldom_then_that_it_is_back() -> None:
    at, now = session(), [0.0]
    show = LineReporter(at, lambda: now[0])
    show.pausing(None, 0)  # nothing was the matter
    show.pausing(Unreachable(why="timeout"), 0.4)  # nobody notices
    for second in range(0, 600, 20):
        now[0] = float(second)
        show.pausing(Unreachable(why="timeout"), 20)
    show.pausing(None, 0)
    show.pausing(Unreachable(why="timeout"), 20)
    lines = printed(at)[1].splitlines()
    assert ["20 s" in line for line in lines] == [True, True, True, True, False, True]
    assert "30 tries" in lines[4]
    assert "9.7 min" in lines[4]


class ClosedTerminal(io.StringIO):
    """What is left of a terminal whose window was closed."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, text)

    def flush(self) -> None:
        raise OSError(errno.EIO, "")


def test_a_live_line_at_a_terminal_that_is_closed_disturbs_nobody() -> None:
    at = session()
    at.err = ClosedTerminal()
    show = reporter(at)
    assert type(show) is LiveReporter
    for done in range(11):
        show.sending(done << 20, 10 << 20)
    show.fetching(1 << 20, 10 << 20)
    show.stop()


def test_a_long_transfer_tells_its_pace_and_what_is_left() -> None:
    at, now = session(), [0.0]
    show = LineReporter(at, lambda: now[0])
    for done in (0, 20, 50):
        show.sending(done << 20, 100 << 20)
        now[0] += 10
    assert printed(at)[1].splitlines() == [
        "sending 0.0 of 100.0 MiB",
        "sending 20.0 of 100.0 MiB, 2.0 MiB/s, 0:00:40 left",
        "sending 50.0 of 100.0 MiB, 3.0 MiB/s, 0:00:17 left",
    ]


@pytest.mark.parametrize(
    ("environ", "lang"),
    [
        ({}, "en"),
        ({"LANG": "ja_JP.UTF-8"}, "ja"),
        ({"LANG": "ja_JP.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LC_MESSAGES": "ja", "LANG": "de_DE"}, "ja"),
        ({"LC_ALL": "", "LANG": "ja"}, "ja"),
        ({"LANG": "fr_FR.UTF-8"}, "en"),
    ],
)
def test_the_language_is_that_of_the_environment(environ: dict[str, str], lang: str) -> None:
    assert language(environ) == lang


def test_a_table_of_the_catalogue_is_no_code() -> None:
    assert sentence("help", {}, "en").what == "help"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("7d", 604_800)],
)
def test_durations_are_written_as_people_write_them(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None).total_seconds() == seconds


def test_inputs_have_the_names_that_they_are_given() -> None:
    assert _inputs(["a=b/c", "d/e.txt", "x=y=z"]) == {"a": "b/c", "e.txt": "d/e.txt", "x": "y=z"}
    with pytest.raises(UsageError, match=r"input\.named_twice"):
        _inputs(["a/x", "b/x"])


@pytest.mark.parametrize("lang", LANGUAGES)
def test_what_ssh_said_is_one_sentence_and_what_we_do_another(
    lang: str, capsys: pytest.CaptureFixture[str]
) -> None:
    show = LineReporter(Session(lang=lang))
    show.pausing(Unreachable("ssh.unreachable", host="far", said="ssh: port 22: refused"), 5)
    assert "ssh: port 22: refused. " in capsys.readouterr().err
    show.pausing(Unavailable("bare.storage"), 5)
    assert not {"..", "。."} & {*re.findall(r"[.。]{2}", capsys.readouterr().err)}
