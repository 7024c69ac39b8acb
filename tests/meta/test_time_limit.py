"""A test that waits for ever fails, says where it waited, and lets the others have their turn."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.time_limit import spread

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 200.0
PROGRAM = """
import asyncio, ctypes, pathlib, subprocess, sys, threading, time
import anyio, pytest

soon = pytest.mark.time_limit(1)


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@pytest.fixture
def slow_to_end():
    yield
    threading.Event().wait()


def deep_in_a_thread(gate):
    gate.wait()


@soon
def test_lock():
    gate = threading.Event()
    threading.Thread(target=deep_in_a_thread, args=(gate,)).start()
    try:
        gate.wait()
    finally:
        gate.set()


@soon
def test_child():
    argv = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as child:
        child.wait()


async def deep_in_a_task():
    await asyncio.Event().wait()


@soon
@pytest.mark.anyio
async def test_task():
    async with anyio.create_task_group() as group:
        group.start_soon(deep_in_a_task)


@soon
def test_swallowed():
    try:
        time.sleep(600)
    except BaseException:
        time.sleep(600)


@soon
def test_teardown(slow_to_end):
    pass


@soon
def test_never_back_from_c():
    lock = ctypes.CDLL(None).pthread_mutex_lock
    mutex = ctypes.create_string_buffer(64)
    lock(mutex)
    lock(mutex)


class TestOwn:
    pytestmark = soon

    @pytest.mark.time_limit(100)
    def test_limit(self):
        time.sleep(1.5)


@pytest.mark.parametrize("number", range(6))
def test_good(number):
    pass
"""
LEFT = """
import ctypes, threading

def test_good():
    threading.Thread(target=ctypes.CDLL(None).sleep, args=(600,), name="left").start()
"""
STILL = """
import pathlib, pytest, threading

@pytest.mark.parametrize("number", range(2))
def test_still(number):
    pathlib.Path(f"started-{number}").touch()
    threading.Event().wait()
"""

SLOW_DEV = """#!/bin/sh
[ "$1" = check ] && exit
trap 'echo these tests were running; exit 1' TERM
while :; do sleep 0.1; done
"""


def prepare(folder: Path, text: str, conftest: str = "") -> list[str]:
    """Write a suite of one file, and return the command that runs it."""
    (folder / "pytest.ini").write_text(f"[pytest]\npythonpath = {ROOT}\n")
    (folder / "conftest.py").write_text(f'pytest_plugins = ["tests.time_limit"]\n{conftest}')
    (folder / "test_it.py").write_text(text)
    return [sys.executable, "-m", "pytest", "-rA", "--color=no", "-p", "no:cacheprovider"]


def ran(argv: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    return subprocess.run(
        argv, cwd=folder, env=own, capture_output=True, text=True, check=False, timeout=SECONDS
    )


def test_each_test_that_hangs_fails_and_the_others_have_their_turn(tmp_path: Path) -> None:
    """Also with the way of sharing tests out that `./dev test` has: not every one bears a crash."""
    shared = re.search(r"-n \d+ (--dist \w+)", (ROOT / "dev").read_text())
    assert shared
    told = ran([*prepare(tmp_path, PROGRAM), "-n", "2", *shared[1].split()], tmp_path)
    ends = set(re.findall(r"(?m)^(FAILED|ERROR|PASSED) test_it\.py::(\S+)", told.stdout))
    hung = ("lock", "child", "task", "swallowed", "never_back_from_c")
    good = ("TestOwn::test_limit", "test_teardown", *(f"test_good[{n}]" for n in range(6)))
    assert ends == {
        *(("FAILED", f"test_{name}") for name in hung),
        *(("PASSED", name) for name in good),
        ("ERROR", "test_teardown"),
    }
    for claim in (
        "Failed: the test's call took longer than 1 s",
        "Failed: the test's teardown took longer than 1 s",
        ", in deep_in_a_thread\n    gate.wait()\n",
        ", in deep_in_a_task\n    await asyncio.Event().wait()\n",
        "crashed while running 'test_it.py::test_never_back_from_c'",
    ):
        assert claim in told.stdout
    assert re.search(r"Timeout \(0:00:02\)!\n(.*\n)*.* in test_never_back_from_c", told.stderr)


def test_a_thread_that_a_test_left_behind_does_not_keep_the_run_from_ending(tmp_path: Path) -> None:
    conftest = "import tests.time_limit\ntests.time_limit.EXIT_S = 2\n"
    told = ran(prepare(tmp_path, LEFT, conftest), tmp_path)
    assert "1 passed" in told.stdout
    assert "Timeout (0:00:02)!" in told.stderr
    assert told.returncode == 1


def test_a_run_that_is_ended_names_the_tests_that_were_running(tmp_path: Path) -> None:
    argv = [*prepare(tmp_path, STILL), "-n", "2"]
    with subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as run:
        end = time.monotonic() + SECONDS / 2
        while len(list(tmp_path.glob("started-*"))) < 2:
            assert time.monotonic() < end, "nothing started"
            time.sleep(0.1)
        run.send_signal(signal.SIGTERM)
        told, _ = run.communicate(timeout=SECONDS / 2)
    assert run.returncode == 128 + signal.SIGTERM
    assert "ended by SIGTERM while these ran:" in told
    for number in range(2):
        assert re.search(rf"test_it\.py::test_still\[{number}\], for \d+ s", told)


def test_this_suite_has_the_limit(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.pluginmanager.hasplugin("tests.time_limit")


def test_ci_ends_what_takes_too_long_by_the_signal_that_makes_it_speak(tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci/run")
    dev = tmp_path / "dev"
    dev.write_text(SLOW_DEV)
    dev.chmod(0o755)
    with subprocess.Popen(
        [tmp_path / ".ci/run"],
        env={**os.environ, "SEKISHO_CI_LIMIT": "1s"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        said, _ = run.communicate(timeout=SECONDS)
    assert "these tests were running" in said
    assert run.returncode == 124


@pytest.mark.parametrize("workers", [1, 2, 4, 7])
def test_each_worker_begins_with_tests_that_may_take_long(workers: int) -> None:
    """Killed by: leaving the slow ones to one worker, who ends long after the others."""
    slow, usual = [f"slow {n}" for n in range(9)], [f"usual {n}" for n in range(50)]
    found = spread(slow, usual, workers)
    assert sorted(found) == sorted([*slow, *usual])
    begin = 0
    for worker in range(workers):
        share = (len(found) - begin) // (workers - worker)
        first = sum(name.startswith("slow") for name in found[begin : begin + share])
        assert first in (9 // workers, 9 // workers + 1)
        assert all(name.startswith("slow") for name in found[begin : begin + first])
        begin += share
    assert spread(slow, [], workers) != []
