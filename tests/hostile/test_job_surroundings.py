"""What a job is given: arguments, environment, descriptors, signal settings; nothing else (A6)."""
# ruff: noqa: ASYNC240 - a test may block its own loop for a small local file

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from sekisho.adapters.hosts import spawn_local
from sekisho.adapters.hosts.spawn_local import LocalSpawner
from sekisho.adapters.schedulers.local import LocalScheduler
from sekisho.domain.errors import UsageError
from sekisho.domain.launch import SHELL_NAMES, LaunchLimits
from tests.launching import (
    PYTHON,
    SweepingScheduler,
    a_launch,
    a_scheduler,
    output,
)

pytestmark = pytest.mark.anyio
SHELLS = [("/bin/sh",), ("/bin/bash", "--posix")]

NASTY = (
    *("", " ", "  ", "\t", "\n", "a\nb", "\r", "\x01", "\x1b[31m", "\x7f", "trailing\n", "\n\n"),
    *("-", "--", "-n", "-e", "-c", "--help", "--version", "-rf", "--", "=", "a=b", "PATH=/x"),
    *("$", "$$", "$HOME", "${HOME}", "$(id)", "`id`", "$((1+1))", "$@", "$*", "$#", "$?", "$!"),
    *("*", "?", "[a-z]", "{a,b}", "~", "~root", "/*", "../../etc/passwd", "/etc/shadow", "."),
    *("'", '"', "\\", "\\\\", "\\n", "\\0", "''", '""', "'\"'\"'", "a'b", 'a"b', "\\'", '\\"'),
    *(";", "; id", "&", "&& id", "|", "|| id", ">", "> /tmp/x", "<", "<<EOF", ">&2", "2>&1", "#"),
    *("!", "!!", "^", "%s", "%n%n", "%d", "(", ")", "()", "() { :; }; id", "{", "}", "if", "exit"),
    *("日本語", "ｶﾞ", "e\u0301", "\u202eabc", "\ufeff", "\u2028", "\U0001f600", "\udc80\udcff"),
    *("\udc81\udc82\udc83\udc84\udc85\udc86\udc87\udc88", "a" * 100_000, "#SBATCH --uid=0"),
    "".join(chr(n) for n in range(1, 128)),
    bytes(range(128, 256)).decode("utf-8", "surrogateescape"),
)


@pytest.fixture
async def scheduler() -> AsyncIterator[SweepingScheduler]:
    async with a_scheduler() as scheduler:
        yield scheduler


@pytest.fixture
def spawner(scheduler: SweepingScheduler) -> LocalSpawner:
    return scheduler.spawner


@pytest.mark.parametrize("shell", SHELLS, ids=["sh", "bash"])
async def test_arguments_arrive_byte_for_byte(
    spawner: LocalSpawner, tmp_path: Path, shell: tuple[str, ...]
) -> None:
    assert len(NASTY) >= 80
    spec = a_launch(tmp_path, *PYTHON, _CMDLINE, *NASTY)
    told = await output(LocalScheduler(spawner, shell=shell), spec)
    assert told.split(b"\0")[len(PYTHON) + 1 : -1] == [os.fsencode(word) for word in NASTY]


_CMDLINE = "import sys; sys.stdout.buffer.write(open('/proc/self/cmdline', 'rb').read())"


@pytest.mark.parametrize("shell", SHELLS, ids=["sh", "bash"])
async def test_the_environment_is_exactly_what_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: tuple[str, ...]
) -> None:
    for name in (*SHELL_NAMES, "LD_AUDIT", "PYTHONSTARTUP", "BASH_ENV", "SBATCH_X", "SECRET"):
        monkeypatch.setenv(name, "of the agent")
    given = {
        "PATH": "/usr/bin:/bin",
        "CALC_DIR": str(tmp_path),
        "HOME": "/nowhere",
        "LANG": "ja_JP.UTF-8",
        "LC_ALL": "xx",
        "LD_LIBRARY_PATH": "/opt/solver/lib",
        "LD_PRELOAD": "",
        "EMPTY": "",
        "lower": "$(id) `id` ' \" \\ * \n end ",
        "CONTROL": "\x01\x1b\x7f",
        "UTF": "日本語 \udc80\udcff",
        "OMP_NUM_THREADS": "1",
        "command": "x",
        "TERM": "dumb",
        "HOSTNAME": "h",
        "USER": "u",
    }
    async with LocalSpawner() as spawner:
        spec = a_launch(tmp_path, "/bin/cat", "/proc/self/environ", env=given)
        told = await output(LocalScheduler(spawner, shell=shell), spec)
    golden = sorted(os.fsencode(f"{name}={value}") for name, value in given.items())
    assert sorted(told.split(b"\0")[:-1]) == golden


@pytest.mark.parametrize("shell", SHELLS, ids=["sh", "bash"])
async def test_an_empty_environment_stays_empty(
    spawner: LocalSpawner, tmp_path: Path, shell: tuple[str, ...]
) -> None:
    spec = a_launch(tmp_path, "/bin/cat", "/proc/self/environ", env={})
    assert await output(LocalScheduler(spawner, shell=shell), spec) == b""


async def test_the_spawner_holds_nothing_of_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "of the agent")
    with (tmp_path / "open").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        async with LocalSpawner() as spawner:
            assert await output(LocalScheduler(spawner), a_launch(tmp_path, "/bin/true")) == b""
            process = Path(f"/proc/{spawner.pid}")
            assert Path(process, "environ").read_bytes() == b""
            links = [str(link.readlink()) for link in Path(process, "fd").iterdir()]
    assert str(tmp_path / "open") not in links


#: All but the two that the C library keeps for itself: it ignores one of them in what it starts.
_ANY_SIGNAL = sum(1 << (number - 1) for number in signal.valid_signals())


async def test_a_job_inherits_no_descriptor_signal_setting_session_or_mask(
    tmp_path: Path,
) -> None:
    look_around = (
        "import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1], os.umask(0o77),"
        " os.getsid(0) == os.getppid())"
    )
    before = [signal.signal(n, signal.SIG_IGN) for n in (signal.SIGHUP, signal.SIGQUIT)]
    try:
        async with LocalSpawner() as spawner:
            told = await output(
                LocalScheduler(spawner), a_launch(tmp_path, "/bin/cat", "/proc/self/status")
            )
            seen = await output(LocalScheduler(spawner), a_launch(tmp_path, *PYTHON, look_around))
    finally:
        for number, old in zip((signal.SIGHUP, signal.SIGQUIT), before, strict=True):
            signal.signal(number, old)
    masks = dict(line.split(b":\t") for line in told.splitlines() if line.startswith(b"Sig"))
    assert not int(masks[b"SigIgn"], 16) & _ANY_SIGNAL
    assert int(masks[b"SigBlk"], 16) == 0
    assert seen == b"[0, 1, 2] 63 True\n"


def test_a_job_inherits_nothing_of_whatever_starts_the_spawner(tmp_path: Path) -> None:
    """Kills: what is only kept out by how the agent starts it: descriptors and blocked signals."""
    look = (
        "import os, signal; told = sorted(map(int, os.listdir('/proc/self/fd')))[:-1], "
        "signal.pthread_sigmask(signal.SIG_BLOCK, ()); open('told', 'w').write(str(told))"
    )
    os.mkfifo(tmp_path / "told")
    ours, theirs = socket.socketpair()

    def careless() -> None:
        for number in (3, 60):
            os.dup2(theirs.fileno(), number, inheritable=True)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])

    with ours:
        with theirs:
            spawner = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    spawn_local.__file__.replace("spawn_local", "spawner"),
                ],
                stdin=theirs.fileno(),
                close_fds=False,
                preexec_fn=careless,  # noqa: PLW1509 (nothing else happens in this process)
            )
        argv = (*PYTHON, look)
        request = spawn_local.SpawnRequest(argv=argv, env={}, work_dir=str(tmp_path))
        ours.sendall(request.encode())
        assert (tmp_path / "told").read_text() == "([0, 1, 2], set())"
    assert spawner.wait(60) == 0


async def test_the_spawner_is_out_of_the_terminals_reach(tmp_path: Path) -> None:
    """Kills: Ctrl+C for an agent at a terminal, which ends the spawner before the agent."""
    async with LocalSpawner() as spawner:
        assert await output(LocalScheduler(spawner), a_launch(tmp_path, "/bin/true")) == b""
        assert spawner.pid is not None
        assert os.getsid(spawner.pid) == spawner.pid


@pytest.mark.parametrize("name", [*sorted(SHELL_NAMES), "BASH_ENV", "BASH_FUNC_x%%", "sekisho_x"])
def test_a_name_that_a_shell_keeps_for_itself_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        a_launch(tmp_path, "/bin/true", env={name: "1"})


@pytest.mark.parametrize("name", ["", "1X", "A B", "A=B", "A-B", "A\n", "\uff21", "A.B", "日本"])
def test_a_name_that_is_no_variable_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        a_launch(tmp_path, "/bin/true", env={name: "1"})


def test_a_spec_that_cannot_be_started_as_it_is_is_refused(tmp_path: Path) -> None:
    spec = a_launch(tmp_path, "/bin/true")
    for change in (
        {"token": "short"},
        {"token": "with space and more"},
        {"argv": ()},
        {"argv": ("relative",)},
        {"argv": ("/bin/echo", "a\0b")},
        {"env": {"A": "a\0b"}},
        {"work_dir": "relative"},
        {"control_dir": "/a\0b"},
    ):
        with pytest.raises(UsageError):
            replace(spec, **change)
    with pytest.raises(UsageError):
        LaunchLimits(max_file_bytes=1)
