"""Completion in the shells themselves: what a key brings, by the script that we print for each."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import SITE, House

SECONDS = 60
OWN = "[site.tokyo-lab]\nmode = 'ssh'\nhost = 'lab'\n"

BASH = """
source <(sekisho completion bash)
COMP_WORDS=({words}) COMP_CWORD={at}
_sekisho_completion sekisho
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def environ(house: House, tmp_path: Path) -> dict[str, str]:
    """The house's settings, with a site that is reached by ssh; `sekisho` is on the path."""
    config = house.config.with_name(f"completion-{tmp_path.name}.toml")
    config.write_text(house.config.read_text() + OWN)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    more = {"PATH": path, "HOME": str(tmp_path), "TERM": "dumb", "SEKISHO_CONFIG": str(config)}
    return house.environ | more


def said(argv: list[str], env: dict[str, str]) -> list[str]:
    done = subprocess.run(
        argv, env=env, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


TYPED = [
    ("sekisho si", {"site", "sites"}),
    ("sekisho broker site r", {"rotate"}),
    ("sekisho run to", {SITE, "tokyo-lab"}),
    ("sekisho site check tok", {"tokyo-lab"}),
    ("sekisho run --in", {"--input", "--into"}),
]


@pytest.mark.parametrize(("typed", "offered"), TYPED)
def test_bash_completes(house: House, tmp_path: Path, typed: str, offered: set[str]) -> None:
    script = BASH.format(words=typed, at=len(typed.split()) - 1)
    lines = said(["bash", "--norc", "-c", script], environ(house, tmp_path))
    assert {line.strip() for line in lines} == offered


@pytest.mark.parametrize(("typed", "offered"), TYPED)
def test_fish_completes(house: House, tmp_path: Path, typed: str, offered: set[str]) -> None:
    script = f"sekisho completion fish | source; complete -C '{typed}'"
    lines = said(["fish", "--no-config", "-c", script], environ(house, tmp_path))
    assert {line.partition("\t")[0] for line in lines} == offered


@contextmanager
def typing(env: dict[str, str]) -> Iterator[int]:
    """Give the terminal of an interactive zsh that has read nobody's start-up files."""
    child, terminal = pty.fork()
    if child == 0:
        os.execvpe("zsh", ["zsh", "-f", "-i"], env)  # noqa: S606 (the shell that is tried)
    try:
        yield terminal
    finally:
        os.close(terminal)
        os.waitpid(child, 0)


def type_until(terminal: int, typed: str, awaited: str) -> str:
    os.write(terminal, typed.encode())
    shown, end = b"", time.monotonic() + SECONDS
    while awaited.encode() not in shown:
        left = end - time.monotonic()
        assert left > 0, (awaited, shown)
        if select.select([terminal], [], [], left)[0]:
            shown += os.read(terminal, 4096)
    return shown.decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("broker tok", "broker token"),
        ("broker site ro", "broker site rotate"),
        ("run tok", "run tokyo-lab"),
        (f"run {SITE[:3]}", f"run {SITE}"),
    ],
)
def test_zsh_completes(house: House, tmp_path: Path, typed: str, completed: str) -> None:
    with typing(environ(house, tmp_path)) as terminal:
        taught = "autoload -U compinit; compinit -u -D; source <(sekisho completion zsh)"
        type_until(terminal, f"{taught}; print tau''ght\n", "taught")
        type_until(terminal, f"sekisho {typed}\t", f"{completed} ")


def test_what_a_command_does_is_told_beside_it_in_the_users_language(
    house: House, tmp_path: Path
) -> None:
    script = "sekisho completion fish | source; complete -C 'sekisho broker site ro'"
    (line,) = said(
        ["fish", "--no-config", "-c", script], environ(house, tmp_path) | {"LC_ALL": "ja_JP.UTF-8"}
    )
    assert line == "rotate\t拠点の今のエージェントを締め出し、新しい招待を表示します。"


def test_fish_tells_also_what_comes_after_a_comma(house: House, tmp_path: Path) -> None:
    script = "sekisho completion fish | source; complete -C 'sekisho job'"
    (line,) = said(["fish", "--no-config", "-c", script], environ(house, tmp_path))
    assert line == "jobs\tList your jobs, newest first."


@pytest.mark.parametrize("command", ["wait", "fetch", "cancel", "show"])
def test_the_users_jobs_are_offered(house: House, tmp_path: Path, command: str) -> None:
    job = house.call("submit", SITE, "say").out.strip()
    script = f"sekisho completion fish | source; complete -C 'sekisho {command} {job[:-2]}'"
    assert job in said(["fish", "--no-config", "-c", script], environ(house, tmp_path))


def test_an_inputs_file_is_completed(house: House, tmp_path: Path) -> None:
    (tmp_path / "strain.txt").touch()
    script = f"sekisho completion fish | source; complete -C 'sekisho run x y -i {tmp_path}/str'"
    lines = said(["fish", "--no-config", "-c", script], environ(house, tmp_path))
    assert lines == [f"{tmp_path}/strain.txt"]


@pytest.mark.parametrize("settings", ["", "[broker", "[broker]\nurl = 'http://127.0.0.1:9'\n"])
def test_whatever_is_wrong_a_key_brings_no_error(
    house: House, tmp_path: Path, settings: str
) -> None:
    env = environ(house, tmp_path)
    Path(env["SEKISHO_CONFIG"]).write_text(settings)
    script = BASH.format(words="sekisho run x", at=2)
    assert said(["bash", "--norc", "-c", script], env) == [""]
