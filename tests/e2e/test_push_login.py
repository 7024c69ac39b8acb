"""The first login at a terminal: ssh asks there, once, and everything after it asks nothing."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bare_site import SITE, BareWorld, bare_world

PASSPHRASE = "correct horse"
SEKISHO = (sys.executable, "-c", "from sekisho.cli.main import main; main()")
SECONDS = 60


@pytest.fixture
def world(tmp_path: Path) -> Iterator[BareWorld]:
    """Give a site whose only key has a passphrase that nothing knows but a person."""
    with bare_world(tmp_path) as made:
        made.program("say", "echo here >out.txt")
        key = made.server.place / "key"
        argv = ["ssh-keygen", "-q", "-p", "-P", "", "-N", PASSPHRASE, "-f", str(key)]
        subprocess.run(argv, check=True, capture_output=True, stdin=subprocess.DEVNULL)
        yield made


def at_terminal(world: BareWorld, typed: str, *words: str) -> tuple[int, str]:
    """Run sekisho at a terminal of its own, typing when asked; return its status and the screen."""
    world.settle()
    environ = world.environ() | {"TERM": "dumb"}
    environ.pop("SSH_ASKPASS", None)
    environ.pop("DISPLAY", None)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(world.place)
        os.execve(sys.executable, [*SEKISHO, *words], environ)  # noqa: S606 (no shell is meant)
    screen, answered = b"", 0
    end = time.monotonic() + SECONDS
    while select.select([terminal], [], [], max(0.0, end - time.monotonic()))[0]:
        try:
            said = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
        screen += said
        while screen.count(b"Enter passphrase") > answered:
            answered += 1
            os.write(terminal, f"{typed}\n".encode())
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(terminal)
    return status, screen.decode("utf-8", "replace")


def test_a_passphrase_is_asked_for_once_and_then_never_again(world: BareWorld) -> None:
    status, screen = at_terminal(world, PASSPHRASE, "run", SITE, "say", "--into", "first")
    assert status == 0, screen
    assert screen.count("Enter passphrase") == 1
    assert (world.place / "first" / "out.txt").read_text() == "here\n"
    for name in ("second", "third"):  # no terminal: whoever had to ask could not
        with world.sekisho("run", SITE, "say", "--into", name) as process:
            _, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, errors
        assert (world.place / name / "out.txt").read_text() == "here\n"
    assert world.server.logins == 1


def test_the_check_logs_in_for_all_who_come_later(world: BareWorld) -> None:
    status, screen = at_terminal(world, PASSPHRASE, "site", "check", SITE)
    assert status == 0, screen
    with world.client() as client:
        assert client.jobs() is not None
    with world.sekisho("site", "check", SITE) as process:
        process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    assert world.server.logins == 1


def test_without_a_terminal_nothing_is_asked_and_the_way_in_is_told(world: BareWorld) -> None:
    with world.sekisho("site", "check", SITE) as process:
        out, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert "[ssh.auth]" in out
    assert f"ssh {SITE}" in out


def test_a_wrong_passphrase_is_told_as_such_and_lets_nobody_in(world: BareWorld) -> None:
    status, screen = at_terminal(world, "wrong", "site", "check", SITE)
    assert status == 1
    assert "[ssh.auth]" in screen
    assert world.server.logins == 0
