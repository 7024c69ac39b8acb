"""What the operating system refuses is told as every other error, never as a traceback."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from sekisho.cli.main import run
from tests.e2e.conftest import SEKISHO

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
            [*SEKISHO, "completion", "bash"],
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
