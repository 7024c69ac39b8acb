"""Programs that are forked are as those that are started: streams, words, signals, their end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sekisho.adapters.durable import CRASH_STATUS
from tests.forked import AS_TYPED, Forked, run
from tests.waiting import until

#: Instead of a program of ours, as it is started and as it is forked.
CODE = """
import os, sys, time
print(os.getcwd(), os.umask(0), sorted(os.environ), sys.argv[1:], time.tzname)
print(sorted(set(map(int, os.listdir("/proc/self/fd"))) & set(range(3, 99)))[1:], sys.stdin.read())
print("über", file=sys.stderr)
sys.exit(7)
"""
ENVIRON = {"A": "b", "LC_ALL": "C.UTF-8", "TZ": "Asia/Tokyo"}


def test_a_forked_program_has_what_a_started_one_has(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        started = subprocess.run(
            [sys.executable, "-I", "-c", CODE, "a b", ""],
            cwd=tmp_path,
            env=ENVIRON,
            input="given",
            capture_output=True,
            text=True,
            check=False,
        )
        forked = run(["a b", ""], cwd=tmp_path, env=ENVIRON, given="given", timeout=60, first=CODE)
    finally:
        os.umask(before)
    assert started.returncode == forked.returncode == 7
    assert started.stdout == forked.stdout != ""
    assert started.stderr == forked.stderr == "über\n"


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["nonsense"], ["sites"]])
def test_a_forked_command_says_what_a_started_one_says(tmp_path: Path, words: list[str]) -> None:
    env = {"HOME": str(tmp_path), "LC_ALL": "C.UTF-8", "PYTHONPATH": os.pathsep.join(sys.path)}
    started = subprocess.run(
        [*AS_TYPED, *words], env=env, capture_output=True, text=True, check=False
    )
    forked = run(words, env=env, timeout=60)
    assert forked.returncode == started.returncode
    assert (forked.stdout, forked.stderr) == (started.stdout, started.stderr)


def test_the_system_shows_a_forked_program_by_its_words(tmp_path: Path) -> None:
    waits = "import time; print(flush=True); time.sleep(600)"
    with Forked(["agent", "--dir", tmp_path], stdout=subprocess.PIPE, first=waits) as process:
        assert process.stdout
        process.stdout.readline()  # as soon as it does this it has its words
        process.kill()
    shown = b"agent\0--dir\0" + bytes(tmp_path)
    with Forked(["agent", "--dir", tmp_path], first=waits) as process:
        until(lambda: shown in Path(f"/proc/{process.pid}/cmdline").read_bytes())
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM


def test_a_crash_point_ends_a_forked_program(tmp_path: Path) -> None:
    armed = {**os.environ, "SEKISHO_CRASHPOINT": "file.begun"}
    done = run(["broker", "init", tmp_path / "new"], env=armed, timeout=60)
    assert done.returncode == CRASH_STATUS


def test_what_was_forked_ends_with_whoever_asked_for_it() -> None:
    """Kills: servers of a test run that was killed."""
    code = (
        "import os; from tests.forked import Forked; "
        "print(Forked([], first='import time; time.sleep(600)').pid, flush=True); "
        "os.kill(os.getpid(), 9)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    asked = subprocess.run([sys.executable, "-c", code], env=env, stdout=-1, check=False)
    until(lambda: not Path(f"/proc/{int(asked.stdout)}").exists())
