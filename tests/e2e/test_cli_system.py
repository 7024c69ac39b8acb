"""What the operating system refuses is told as every other error, never as a traceback."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from sekisho.cli.main import run
from tests.forked import AS_TYPED

BROKER = "http://127.0.0.1:1"


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    assert run([str(word) for word in words]) == 73
    told = capsys.readouterr().err
    assert "error[system.refused]" in told
    assert "Traceback" not in told
    return told


def test_a_token_for_a_place_that_is_not_there_opens_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "broker" / "broker.toml"
    assert run(["broker", "init", str(config.parent)]) == 0
    place = tmp_path / "nowhere" / "token"
    words = ("broker", "token", "create", "--role", "submitter", "--user", "taro")
    told = refused(capsys, *words, "--to", place, "-c", config)
    assert str(place.parent) in told
    assert run(["broker", "token", "list", "-c", str(config), "--json"]) == 0
    assert '"revoked_at":null' not in capsys.readouterr().out


def test_settings_for_a_place_that_cannot_be_made_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").touch()
    made = run(["broker", "init", str(tmp_path / "b")])
    assert made == 0
    config = str(tmp_path / "b" / "broker.toml")
    words = ["broker", "token", "create", "--role", "submitter", "--user", "t", "-c", config]
    assert run([*words, "--to", str(tmp_path / "token")]) == 0
    capsys.readouterr()
    place = tmp_path / "file" / "below" / "client.toml"
    init = ("client", "init", "--broker", BROKER, "--token-file", tmp_path / "token")
    assert "file" in refused(capsys, "--config", place, *init)


def test_a_full_disk_behind_the_output_is_told() -> None:
    """Kills: a traceback, or status 0, when what was asked for could not be printed."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*AS_TYPED, "completion", "bash"],
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            timeout=60,
        )
    assert done.returncode == 73
    assert done.stderr.startswith("error[system.refused]: ")
    assert "Traceback" not in done.stderr
    assert "ignored" not in done.stderr


def piped(words: str, tail: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Call the command line from a shell; the status is its own, whatever reads it."""
    command = f"set -o pipefail; {' '.join(map(shlex.quote, AS_TYPED))} {words} {tail}"
    return subprocess.run(
        ["bash", "-c", command],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C.UTF-8", **environ},
        timeout=60,
    )


@pytest.mark.parametrize("words", ["completion bash", "--help", "run --help"])
@pytest.mark.parametrize("tail", ["| true", ">&-", ">&- 2>&-", "<&- | true"])
def test_who_has_read_enough_is_not_told_of_an_error(words: str, tail: str) -> None:
    """Kills: a traceback about a stream that is closed, a status of failure."""
    done = piped(words, tail)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_file_that_is_opened_never_takes_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    """Kills: what is printed in a file that happened to get the number of stdout."""
    done = piped(f"broker init {tmp_path / 'b'}", ">&- 2>&-")
    assert done.returncode == 0
    texts = [f.read_bytes() for f in (tmp_path / "b").rglob("*") if f.is_file()]
    assert texts
    assert not any(b"broker site add NAME" in text for text in texts)


def test_an_error_that_has_no_room_as_json_is_told_on_stderr() -> None:
    done = piped("sites --json", ">/dev/full", SEKISHO_CONFIG="/nowhere/client.toml")
    assert done.returncode == 78
    assert done.stderr.startswith("error[client.not_set_up]: ")


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_a_terminal_without_our_letters_gets_their_numbers(lang: str) -> None:
    ascii_only = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    config = "/nowhere/計算.toml"
    done = piped(f"--lang {lang} sites --json", "", SEKISHO_CONFIG=config, **ascii_only)
    assert done.returncode == 78
    assert (done.stdout.isascii(), done.stderr) == (True, "")
    assert "client.not_set_up" in done.stdout


def test_a_name_that_the_locale_cannot_write_is_told_with_a_way_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwritable(*_words: object) -> None:
        "計算".encode("latin-1")

    monkeypatch.setattr("sekisho.cli.completion.get_completion_class", unwritable)
    assert run(["--lang", "en", "completion", "bash"]) == 73
    assert "error[system.encoding]" in capsys.readouterr().err


def test_a_machine_without_ssh_is_told_what_it_lacks(tmp_path: Path) -> None:
    config = tmp_path / "client.toml"
    config.write_text('[site.far]\nmode = "ssh"\nhost = "far"\n')
    done = subprocess.run(
        [*AS_TYPED, "run", "far", "solve"],
        check=False,
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "SEKISHO_CONFIG": str(config),
            "PATH": str(tmp_path),
            "LC_ALL": "C.UTF-8",
        },
        timeout=60,
    )
    assert done.returncode == 73
    assert done.stderr.startswith("error[system.no_program]: There is no program ssh")
