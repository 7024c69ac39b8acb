"""The first login at a terminal: ssh asks there, once, and everything after it asks nothing.

What is asked for is the passphrase of a key, or a code: a second factor, by the server's PAM.
"""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bare_site import SITE, BareWorld, bare_world
from tests.forked import AS_TYPED
from tests.mounts import within_mounts

PASSPHRASE = "correct horse"
CODE = "731942"
WRONG_CODE = "000000"
ASKED = {PASSPHRASE: b"Enter passphrase", CODE: b"Password: ", WRONG_CODE: b"Password: "}
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
        os.execve(sys.executable, [*AS_TYPED, *words], environ)  # noqa: S606 (no shell is meant)
    screen, answered = b"", 0
    question = ASKED.get(typed, ASKED[PASSPHRASE])
    end = time.monotonic() + SECONDS
    while select.select([terminal], [], [], max(0.0, end - time.monotonic()))[0]:
        try:
            said = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
        screen += said
        while screen.count(question) > answered:
            answered += 1
            os.write(terminal, f"{typed}\n".encode())
    os.close(terminal)  # whoever still waits for an answer hears that there is none
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
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
    assert f"ssh -F {world.place / 'ssh_config'} {SITE}` at a terminal" in out


def test_a_wrong_passphrase_is_told_as_such_and_lets_nobody_in(world: BareWorld) -> None:
    status, screen = at_terminal(world, "wrong", "site", "check", SITE)
    assert status == 1
    assert "[ssh.auth]" in screen
    assert world.server.logins == 0


# ---------------------------------------------------------------------- a second factor


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[BareWorld]:
    """Give a site that wants a key and then a code, as PAM asks for it; PAM is this test's own."""
    pam = tmp_path / "pam.d"
    pam.mkdir()
    check = tmp_path / "check.sh"
    check.write_text(f'#!/bin/sh\n[ "$(tr -d "\\000")" = {CODE} ]\n')
    check.chmod(0o755)
    (pam / "sshd").write_text(
        f"auth required pam_exec.so expose_authtok quiet {check}\nauth required pam_permit.so\n"
        "account required pam_permit.so\nsession required pam_permit.so\n"
    )
    lines = [
        "UsePAM yes",
        "PermitRootLogin yes",  # else a root's answer never gets to PAM
        "KbdInteractiveAuthentication yes",
        "AuthenticationMethods publickey,keyboard-interactive",
    ]
    with bare_world(tmp_path, lines, within=in_place_of("/etc/pam.d", pam)) as made:
        made.program("say", "echo here >out.txt")
        yield made


def in_place_of(folder: str, other: Path) -> list[str]:
    """Return the beginning of a command line that sees ``other`` where ``folder`` is."""
    return within_mounts('mount --bind "$0" "$1"', str(other), folder)


def test_a_second_factor_is_asked_for_once_and_then_never_again(guarded: BareWorld) -> None:
    status, screen = at_terminal(guarded, CODE, "run", SITE, "say", "--into", "first")
    assert status == 0, screen
    assert screen.count("Password: ") == 1
    for name in ("second", "third"):  # no terminal, and no code to type
        with guarded.sekisho("run", SITE, "say", "--into", name) as process:
            _, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, errors
        assert (guarded.place / name / "out.txt").read_text() == "here\n"
    assert factors(guarded) == 1


def test_without_the_second_factor_nobody_is_in(guarded: BareWorld) -> None:
    status, screen = at_terminal(guarded, WRONG_CODE, "site", "check", SITE)
    assert status == 1
    assert "[ssh.auth]" in screen
    with guarded.sekisho("site", "check", SITE) as process:  # no terminal to ask at
        assert "[ssh.auth]" in process.communicate(timeout=SECONDS)[0]
    assert factors(guarded) == 0


def factors(world: BareWorld) -> int:
    return world.server.log.read_text("utf-8", "replace").count("Accepted keyboard-interactive")


def test_where_each_login_is_cut_off_a_code_is_not_asked_for_without_end(
    guarded: BareWorld,
) -> None:
    """Killed by: trying again for as long as work is owed, with a person at the other end."""
    over = threading.Event()

    def cut_off() -> None:
        seen = 0
        while not over.wait(0.01):
            if factors(guarded) > seen:
                seen = factors(guarded)
                guarded.line.cut()

    watcher = threading.Thread(target=cut_off)
    watcher.start()
    try:
        status, screen = at_terminal(guarded, CODE, "run", SITE, "say", "--into", "first")
    finally:
        over.set()
        watcher.join()
    assert "[ssh.asked]" in screen
    assert status == 77
    assert 1 <= screen.count("Password: ") <= 3
    status, screen = at_terminal(guarded, CODE, "run", SITE, "say", "--into", "second")
    assert status == 0, screen  # by another program, when the fault is gone
