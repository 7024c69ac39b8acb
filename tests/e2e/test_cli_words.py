"""Every command explains itself, and complains, in the user's language, whole."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from sekisho.cli.examples import EXAMPLES
from sekisho.cli.help_text import lines
from sekisho.cli.main import cli, run
from sekisho.cli.output import width
from sekisho.cli.session import Session
from sekisho.cli.words import localise

JAPANESE = re.compile(r"[぀-ヿ一-鿿]")
ENGLISH = re.compile(r"[A-Za-z]+ [a-z]+ [a-z]+")


def paths(group: click.Group, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words that lead to every command there is."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        yield (*before, name)
        if isinstance(command, click.Group):
            yield from paths(command, (*before, name))


ALL = [(), *paths(cli)]


def test_all_commands_are_looked_at() -> None:
    assert {("run",), ("broker", "token", "create"), ("site", "gate-key", "add")} <= set(ALL)
    assert len(ALL) > 50


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_a_help_is_in_one_language(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Kills: an option or a command without words in one of the languages."""
    assert run(["--lang", "ja", *words, "--help"]) == 0
    usage, _, japanese = capsys.readouterr().out.partition("\n")
    assert usage.startswith("使い方: sekisho")
    typed = re.compile(r"`[^`]*`|^  .*sekisho .*$", re.MULTILINE)  # examples among it
    assert ENGLISH.findall(typed.sub("", japanese)) == []
    assert JAPANESE.search(japanese)
    assert run(["--lang", "en", *words, "--help"]) == 0
    english = capsys.readouterr().out
    assert english.startswith("Usage: sekisho")
    assert not JAPANESE.search(english)


@pytest.mark.parametrize("lang", ["en", "ja"])
@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_option_is_explained(words: tuple[str, ...], lang: str) -> None:
    context, command = click.Context(cli, info_name="sekisho"), cli
    context.obj = Session(lang=lang)
    for word in words:
        assert isinstance(command, click.Group)
        command = command.get_command(context, word)  # type: ignore[assignment]
        context = click.Context(command, parent=context, info_name=word)
    localise(command, context)
    options = [p for p in command.params if isinstance(p, click.Option)]
    assert [option.name for option in options if not option.help] == []


WRONG = [
    ([], "Missing command", "コマンドがありません"),
    (["nix"], "No such command 'nix'", "'nix' というコマンドはありません"),
    (["run", "x"], "Missing argument 'COMMAND'", "引数がありません: 'COMMAND'"),
    (["jobs", "--limit", "x"], "Invalid value for '--limit'", "'--limit' の値が正しくありません"),
    (["jobs", "--limit", "0"], "not in the range", "範囲"),
    (
        ["broker", "status", "--nix"],
        "No such option '--nix'",
        "'--nix' というオプションはありません",
    ),
    (["broker", "lost", "j", "-c", "f"], "Missing option '--by'", "オプションがありません: '--by'"),
    (["broker", "token", "create", "--role", "king"], "is not one of", "のいずれでもありません"),
]


@pytest.mark.parametrize(("argv", "english", "japanese"), WRONG)
def test_a_wrong_call_is_told_in_the_users_language(
    argv: list[str], english: str, japanese: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for lang, words, others in (("ja", japanese, english), ("en", english, japanese)):
        assert run(["--lang", lang, *argv]) == 64
        told = capsys.readouterr().err
        assert words in told
        assert others not in told


def test_the_locale_decides_when_nobody_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LC_ALL", "ja_JP.UTF-8")
    assert run(["nix"]) == 64
    assert "というコマンドはありません" in capsys.readouterr().err
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    assert run(["nix"]) == 64
    assert "No such command" in capsys.readouterr().err


def found(words: list[str]) -> click.Command:
    command: click.Command | None = cli
    for word in words:
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), word)
    assert command is not None
    return command


GROUPS = [words for words in ALL if isinstance(found([*words]), click.Group)]


@pytest.mark.parametrize("words", GROUPS, ids=" ".join)
def test_a_group_alone_shows_its_help(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Kills: the whole help as one long line of an error, its line ends made harmless."""
    assert run([*words, "--help"]) == 0
    helped = capsys.readouterr().out
    assert run([*words]) == 64
    assert capsys.readouterr().err == helped


def test_a_complaint_has_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion"]) == 64
    told = capsys.readouterr().err
    assert "Choose from: bash, zsh, fish" in told
    assert "\N{REPLACEMENT CHARACTER}" not in told


def test_a_directory_for_a_file_is_told_in_japanese(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--lang", "ja", "--config", "/", "jobs"]) == 64
    assert "'/' はディレクトリです" in capsys.readouterr().err
    assert "File" not in capsys.readouterr().err


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_japanese_help_fits_into_the_terminal(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: lines cut where the terminal ends, as if every character took one column."""
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["--lang", "ja", *words, "--help"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if JAPANESE.search(line)]
    assert [line for line in lines if width(line) > 80] == []


def test_lines_break_where_japanese_may() -> None:
    text = "設定 (既定: $SEKISHO_CONFIG)。次は「関所」と、終わり。"
    broken = list(lines(text, 20))
    assert "".join(broken).replace(" ", "") == text.replace(" ", "")
    assert all(width(line) <= 20 for line in broken)
    assert not any(line[0] in "、。」)" for line in broken)
    assert list(lines("a/word/that/is/longer 短い", 10)) == ["a/word/that/is/longer", "短い"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_a_call_that_can_be_made(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each is shown by its command's help, and has only options that there are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEKISHO_BROKER_CONFIG", "broker.toml")
    Path("broker-ca.pem").touch()
    words = name.split(".")
    assert run([*words, "--help"]) == 0
    shown = capsys.readouterr().out
    for example in EXAMPLES[name]:
        assert f"\n  {example}\n" in shown
        _, _, typed = example.rpartition("sekisho ")
        given = shlex.split(typed.partition(" > ")[0].rstrip(")"))
        assert given[: len(words)] == words
        found(words).make_context(words[-1], given[len(words) :], obj=Session())


SAYS_NOTHING = {
    ("agent",),
    ("broker", "serve"),  # run until they are stopped
    ("completion",),  # its output is a program
    ("site", "manifest-from"),  # its output is a manifest
}


def test_every_command_can_speak_to_a_program() -> None:
    """Only groups, and what runs until it is stopped, have no `--json`."""
    without = set()
    for words in ALL[1:]:
        command: click.Command | None = cli
        for word in words:
            assert isinstance(command, click.Group)
            command = command.get_command(click.Context(command), word)
        assert command is not None
        has = any("--json" in param.opts for param in command.params)
        if not has and not isinstance(command, click.Group):
            without.add(words)
    assert without <= SAYS_NOTHING


def test_an_error_of_the_operators_commands_is_json_when_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["broker", "status", "-c", "/nowhere/broker.toml", "--json"]) == 78
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "config.unreadable"
