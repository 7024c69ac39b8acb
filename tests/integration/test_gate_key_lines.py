"""A gate key's line, as a real sshd reads it: the words that run, from where, until when."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sekisho.adapters.gate_keys import line_for
from tests.sshd import Sshd, make_key, serving


def a_line(
    pair: Path,
    *,
    home: Path = Path("/srv/site"),
    sources: str | None = None,
    expires: datetime | None = None,
) -> str:
    key = pair.with_suffix(".pub").read_text()
    return line_for(key, home=home, submitter="alice", sources=sources, expires=expires)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with serving(tmp_path_factory.mktemp("sshd")) as running:
        yield running


NASTY = [
    "plain",
    "a space",
    "dollar$HOME$(id)",
    "back`id`tick",
    "semi;colon&and|pipe",
    "日本語",
    "glob*?[x]",
    "-dash",
    "percent%h%u",
    "#hash",
    "{brace,s}",
    "ssh-x AAAA",
]


@pytest.mark.parametrize("name", NASTY)
def test_the_server_runs_exactly_the_words_of_the_line(
    server: Sshd, tmp_path: Path, name: str
) -> None:
    """The interpreter's place is a program here that says what it was given."""
    pair = make_key(tmp_path / "pair")
    said = tmp_path / "said"
    words = tmp_path / "words"
    words.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {said}\n')
    words.chmod(0o755)
    home = Path("/srv") / name
    line = a_line(pair, home=home)
    line = line.replace(interpreter(line), str(words), 1)
    server.authorize(line)
    assert entered(server, pair, tmp_path)
    assert said.read_text() == f"-I\n-m\nsekisho.cli.gate\n--dir\n{home}\n--submitter\nalice\n"


def interpreter(line: str) -> str:
    return line.partition('command="')[2].partition(" ")[0]


def entered(server: Sshd, pair: Path, place: Path) -> bool:
    """Say whether the server lets the key in."""
    config = place / "config"
    config.write_text(server.alias("far", key=pair))
    argv = ["ssh", "-F", str(config), "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "far"]
    ended = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60
    )
    return ended.returncode != 255


@pytest.mark.parametrize(
    ("sources", "open_"),
    [("127.0.0.1", True), ("127.0.0.0/8", True), ("192.0.2.0/24", False), ("!127.0.0.1,*", False)],
)
def test_a_key_opens_only_from_where_it_may(
    server: Sshd, tmp_path: Path, sources: str, open_: bool
) -> None:
    pair = make_key(tmp_path / "pair")
    server.authorize(a_line(pair, sources=sources))
    assert entered(server, pair, tmp_path) is open_


@pytest.mark.parametrize(("hours", "open_"), [(-1, False), (1, True), (24 * 400, True)])
@pytest.mark.parametrize("zone", [UTC, None])
def test_a_key_opens_only_until_it_ends(
    server: Sshd, tmp_path: Path, hours: int, open_: bool, zone: object
) -> None:
    pair = make_key(tmp_path / "pair")
    expires = datetime.now(UTC) + timedelta(hours=hours)
    if zone is None:
        expires = expires.astimezone()
    server.authorize(a_line(pair, expires=expires))
    assert entered(server, pair, tmp_path) is open_
