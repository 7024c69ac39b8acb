"""A confined command tries to reach what it was not granted; unconfined, the same tries succeed."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sekisho.adapters.sandboxes.landlock import LandlockSandbox
from sekisho.domain.errors import UsageError
from sekisho.domain.launch import Sandbox

#: Each line is a try of the command to show SECRET, to write OUTSIDE, or to reach PORT. Sh, as an
#: input deck that can run anything would write it.
READS = [
    "cat SECRET",
    "cat < SECRET",
    "cp SECRET got; cat got",
    "mv SECRET got; cat got",
    "ln SECRET got; cat got",
    "ln -s SECRET got; cat got",
    "ln -s / root; cat rootSECRET",
    "ln -s DIR folder; cat folder/secret.txt",
    "cat /proc/self/root/SECRET",
    "cat /proc/self/cwd/../secrets/secret.txt",
    "cat ../secrets/secret.txt",
    "cat ./../secrets/./secret.txt",
    "cd DIR; cat secret.txt",
    "exec 3< SECRET; cat <&3",
    "dd if=SECRET",
    "tar cf - DIR | cat",
    "sed -n p SECRET",
    "head -c 100 SECRET",
    "od -c SECRET | tr -d ' \\\\n0-9'",
    "base64 SECRET | base64 -d",
    "tee got < SECRET",
    "sh -c 'sh -c \"cat SECRET\"'",
    "setsid cat SECRET",
    "nohup cat SECRET",
    "env -i cat SECRET",
    "(cat SECRET &) ; sleep 0.2",
    "find DIR -type f -exec cat {} +",
    "grep -r . DIR",
    "PYTHON -c \"print(open('SECRET').read())\"",
    "PYTHON -c \"import os; os.chroot('DIR'); print(open('/secret.txt').read())\"",
    "PYTHON -c \"import os; d=os.open('DIR', os.O_PATH); "
    "print(os.read(os.open('secret.txt', 0, dir_fd=d), 99))\"",
    "PYTHON -c \"import mmap,os; f=os.open('SECRET', 0); print(mmap.mmap(f, 0, prot=1)[:])\"",
    "PYTHON -c \"import shutil; shutil.copytree('DIR', 'c'); print(open('c/secret.txt').read())\"",
    "xargs -a SECRET echo",
    ". SECRET",
]


@dataclass
class Sentinel:
    """Listens on this machine and counts who comes."""

    port: int = 0
    seen: list[object] = field(default_factory=list)


@dataclass(frozen=True)
class Yard:
    """A work directory, and beside it what the command must not reach."""

    work: Path
    secret: Path
    canary: str

    def run(self, line: str, grants: Sandbox | None) -> str:
        """Run one line of sh in the work directory; return all that it left or said."""
        text = (
            line.replace("SECRET", str(self.secret))
            .replace("DIR", str(self.secret.parent))
            .replace("PYTHON", "/usr/bin/python3")
        )
        argv: tuple[str, ...] = ("/bin/sh", "-c", text)
        if grants is not None:
            argv = LandlockSandbox().wrap(argv, str(self.work), grants)
        done = subprocess.run(
            argv,
            cwd=self.work,
            env={"PATH": "/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=30,
        )
        left = [
            file.read_bytes()
            for file in self.work.iterdir()
            if file.is_file() and not file.is_symlink()
        ]
        return b"\n".join([done.stdout, done.stderr, *left]).decode("utf-8", "replace")


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    canary = f"SECRET-{secrets.token_hex(16)}"
    (tmp_path / "secrets").mkdir()
    secret = tmp_path / "secrets" / "secret.txt"
    secret.write_text(f"{canary}\n")
    (tmp_path / "work").mkdir()
    return Yard(tmp_path / "work", secret, canary)


@pytest.mark.parametrize("line", READS)
def test_no_try_shows_what_was_not_granted(yard: Yard, line: str) -> None:
    assert yard.canary not in yard.run(line, Sandbox())
    assert yard.secret.read_text() == f"{yard.canary}\n"


def test_unconfined_most_of_the_same_tries_succeed(tmp_path: Path) -> None:
    """The positive control: were the sandbox off, the tests above would see the canary."""
    leaks = 0
    for n, line in enumerate(READS):
        place = tmp_path / str(n)
        (place / "secrets").mkdir(parents=True)
        (place / "work").mkdir()
        canary = f"SECRET-{secrets.token_hex(16)}"
        secret = place / "secrets" / "secret.txt"
        secret.write_text(f"{canary}\n")
        leaks += canary in Yard(place / "work", secret, canary).run(line, None)
    assert leaks >= 25


def test_what_is_granted_can_be_read_and_not_written(yard: Yard) -> None:
    grants = Sandbox(read=(str(yard.secret.parent),))
    assert yard.canary in yard.run("cat SECRET", grants)
    yard.run("echo changed > SECRET; rm -f SECRET; touch DIR/new", grants)
    assert yard.secret.read_text() == f"{yard.canary}\n"
    assert not (yard.secret.parent / "new").exists()


def test_what_is_granted_for_writing_can_be_written(yard: Yard) -> None:
    yard.run("echo changed > SECRET", Sandbox(write=(str(yard.secret.parent),)))
    assert yard.secret.read_text() == "changed\n"


@pytest.mark.parametrize(
    "line",
    ["echo x > DIR/new", "touch DIR/new", "mkdir DIR/new", "ln -s /etc DIR/new", "rm SECRET",
     "mv SECRET DIR/new", "truncate -s 0 SECRET", "echo x >> SECRET", "mkfifo DIR/new",
     "echo x > ../new; mv ../new DIR/new", "cp /bin/true DIR/new", "sh -c 'echo x > DIR/new'"],
)  # fmt: skip
def test_nothing_is_written_outside(yard: Yard, line: str) -> None:
    before = sorted(p.name for p in yard.secret.parent.parent.rglob("*"))
    yard.run(line, Sandbox())
    assert sorted(p.name for p in yard.secret.parent.parent.rglob("*")) == before
    assert yard.secret.read_text() == f"{yard.canary}\n"


@pytest.fixture
def sentinel() -> Iterator[Sentinel]:
    made = Sentinel()
    with socket.create_server(("127.0.0.1", 0)) as server:
        made.port = server.getsockname()[1]

        def listen() -> None:
            while True:
                try:
                    connection, address = server.accept()
                except OSError:
                    return
                connection.close()
                made.seen.append(address)

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield made
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


CALL = (
    "PYTHON -c \"import socket; socket.create_connection(('127.0.0.1', {port}), 2); print('in')\""
)


def test_no_connection_is_made_without_a_grant(yard: Yard, sentinel: Sentinel) -> None:
    assert "PermissionError" in yard.run(CALL.format(port=sentinel.port), Sandbox())
    assert sentinel.seen == []
    assert "in\n" in yard.run(CALL.format(port=sentinel.port), None)  # the control


def test_a_granted_port_can_be_reached_and_no_other(yard: Yard, sentinel: Sentinel) -> None:
    assert "in\n" in yard.run(CALL.format(port=sentinel.port), Sandbox(connect=(sentinel.port,)))
    other = Sandbox(connect=(sentinel.port + 1 if sentinel.port < 65_535 else 1,))
    assert "PermissionError" in yard.run(CALL.format(port=sentinel.port), other)


def test_the_command_cannot_open_a_port(yard: Yard) -> None:
    line = "PYTHON -c \"import socket; socket.create_server(('127.0.0.1', 0)); print('open')\""
    assert "open\n" not in yard.run(line, Sandbox())
    assert "open\n" in yard.run(line, Sandbox(network=True))


def test_the_command_cannot_signal_others(yard: Yard) -> None:
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as other:
        yard.run(f"kill -9 {other.pid}", Sandbox())
        assert other.poll() is None
        yard.run(f"kill -9 {other.pid}", None)  # the control
        assert other.wait(10) == -9


def test_the_command_cannot_read_the_environment_of_others(yard: Yard) -> None:
    marked = {"PATH": "/usr/bin:/bin", "MARK": yard.canary}
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, env=marked) as other:
        assert other.stdin is not None
        line = f"cat /proc/{other.pid}/environ"
        assert yard.canary not in yard.run(line, Sandbox())
        assert yard.canary in yard.run(line, None)  # the control
        other.kill()


def test_exit_code_environment_and_arguments_pass_through_unchanged(yard: Yard) -> None:
    argv = LandlockSandbox().wrap(
        ("/bin/sh", "-c", 'env; printf "<%s>" "$@"; exit 7', "sh", "a b", "*", "é", ""),
        str(yard.work),
        Sandbox(),
    )
    done = subprocess.run(
        argv, env={"ONE": "1", "PYTHONPATH": "/nowhere"}, capture_output=True, check=False
    )
    assert done.returncode == 7
    printed = done.stdout.decode()
    assert printed.endswith("<a b><*><é><>")
    names = {line.partition("=")[0] for line in printed.splitlines() if "=" in line}
    assert names <= {"ONE", "PYTHONPATH", "PWD", "_", "OLDPWD", "SHLVL"}
    assert "ONE=1" in printed


def test_where_the_rules_cannot_be_set_nothing_is_run(yard: Yard) -> None:
    """A seccomp-like refusal, played by a kernel call number that does not exist."""
    script = LandlockSandbox().wrap(("/usr/bin/touch", "ran"), str(yard.work), Sandbox())[3]
    broken = yard.work.parent / "confine.py"
    broken.write_text(Path(script).read_text().replace("444, 445, 446", "9999, 9998, 9997"))
    told = json.dumps({"read": [], "write": [str(yard.work)], "network": False, "connect": []})
    argv = [sys.executable, "-I", "-S", str(broken), told, "--", "/usr/bin/touch", "ran"]
    done = subprocess.run(argv, cwd=yard.work, check=False)
    assert done.returncode == 126
    assert not (yard.work / "ran").exists()


@pytest.mark.parametrize("path", ["relative", "", "../up", "/a/../b", "/nul\0"])
def test_a_grant_is_an_absolute_path(path: str) -> None:
    with pytest.raises(UsageError):
        Sandbox(read=(path,))


@pytest.mark.parametrize("path", ["/", "//", "/proc", "/proc/"])
def test_a_grant_of_everything_is_none(path: str) -> None:
    with pytest.raises(UsageError) as caught:
        Sandbox(read=(path,))
    assert caught.value.code == "sandbox.too_wide"


@pytest.mark.parametrize("port", [0, -1, 65_536])
def test_a_granted_port_is_one(port: int) -> None:
    with pytest.raises(UsageError):
        Sandbox(connect=(port,))


def test_this_machine_can_enforce_what_is_tested_here() -> None:
    assert LandlockSandbox().faults(Sandbox()) == []
    assert os.uname().sysname == "Linux"
