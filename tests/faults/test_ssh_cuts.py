"""Bad lines and killed programs in push mode without an agent: one job, one start, one result."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from sekisho.client.client import new_job_id
from sekisho.client.spec import JobSpec
from sekisho.domain.job import JobState
from tests.bare_site import SITE, BareWorld, bare_world

MIB = 1 << 20
CUTS = 20
_DICE = random.Random(20)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[BareWorld]:
    with bare_world(tmp_path) as made:
        made.program(
            "work",
            f'echo started >>"{made.place}/starts"; n=0\n'
            "while [ $n -lt 60 ]; do n=$((n+1)); echo $n; echo $n >last; sleep 0.1; done\n"
            "cat big.inp big.inp >out.bin 2>/dev/null; :",
        )
        made.program(
            "hold", f'echo s >>"{made.place}/starts"; while [ ! -e go ]; do sleep 0.05; done'
        )
        yield made


def starts(world: BareWorld) -> int:
    return len((world.place / "starts").read_text().splitlines())


def pause(at_most_s: float) -> None:
    threading.Event().wait(_DICE.uniform(0, at_most_s))


def ssh_processes(world: BareWorld) -> list[int]:
    """The ssh and rsync programs of this world's client: by its settings in their words."""
    mark = str(world.place / "ssh_config").encode()
    found = []
    for place in Path("/proc").iterdir():
        with suppress(OSError):
            words = (place / "cmdline").read_bytes() if place.name.isdigit() else b""
            if mark in words and (words.startswith((b"ssh", b"rsync"))):
                found.append(int(place.name))
    return found


def kill_one(world: BareWorld) -> None:
    for pid in ssh_processes(world)[-1:]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_all(world: BareWorld) -> None:
    for pid in ssh_processes(world):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


WAYS: list[Callable[[BareWorld], object]] = [
    lambda world: world.line.cut(),
    lambda world: world.server.cut(),
    kill_one,
    kill_all,
]


def test_a_job_whose_line_is_cut_twenty_times_loses_nothing_and_starts_once(
    world: BareWorld, tmp_path: Path
) -> None:
    big = tmp_path / "big.inp"
    big.write_bytes(os.urandom(24 * MIB))
    over = threading.Event()

    def breaker() -> int:
        done = 0
        while done < CUTS and not over.is_set():
            pause(0.6)
            WAYS[done % len(WAYS)](world)
            done += 1
        return done

    with world.client() as client, ThreadPoolExecutor(1) as other:
        cuts = other.submit(breaker)
        try:
            job = client.submit(JobSpec(site=SITE, command="work", inputs=[big]))
            result = job.result(tmp_path / "result")
        finally:
            over.set()
        assert cuts.result() > CUTS // 3
    assert starts(world) == 1
    assert result.state == JobState.SUCCEEDED
    assert (tmp_path / "result" / "out.bin").read_bytes() == big.read_bytes() * 2
    log = (tmp_path / "result" / "remote_program_exec.log").read_text().split()
    assert log == [str(n) for n in range(1, 61)]


def test_a_restarted_sshd_is_found_again(world: BareWorld, tmp_path: Path) -> None:
    with world.client() as client:
        job = client.submit(JobSpec(site=SITE, command="hold"))
        world.server.cut()
        world.server.stop()
        work = world.job_directory(job.id) / "work"
        with ThreadPoolExecutor(1) as other:
            waiting = other.submit(job.result, tmp_path / "r")
            (work / "go").touch()
            world.server.start()
            assert waiting.result(90).state == JobState.SUCCEEDED
    assert starts(world) == 1


@pytest.mark.parametrize("after_s", [0.3, 0.6, 0.9, 1.2, 2.0])
def test_a_killed_client_is_continued_by_another_process(
    world: BareWorld, tmp_path: Path, after_s: float
) -> None:
    big = tmp_path / "big.inp"
    big.write_bytes(os.urandom(8 * MIB))
    job_id = new_job_id()
    words = ("run", SITE, "work", "--id", job_id, "--input", str(big), "--into", str(tmp_path))
    with world.sekisho(*words) as first:
        with suppress(subprocess.TimeoutExpired):
            first.wait(after_s)
        first.kill()
        first.communicate()
    with world.sekisho(*words) as again:
        again.communicate(timeout=120)
    assert again.returncode == 0
    assert starts(world) == 1
    assert (tmp_path / "out.bin").read_bytes() == big.read_bytes() * 2
    with world.sekisho("wait", job_id, "--into", str(tmp_path / "w")) as third:
        third.communicate(timeout=120)
    assert third.returncode == 0
    assert (tmp_path / "w" / "out.bin").read_bytes() == big.read_bytes() * 2


def test_two_clients_wait_for_one_job_and_get_the_same(world: BareWorld, tmp_path: Path) -> None:
    with world.client() as client:
        job = client.submit(JobSpec(site=SITE, command="hold"))
        waits = [
            world.sekisho("wait", job.id, "--into", str(tmp_path / name), state=state)
            for name, state in (("a", "state"), ("b", "state"), ("c", "elsewhere"))
        ]
        (world.job_directory(job.id) / "work" / "go").touch()
        for process in waits:
            with process:
                process.communicate(timeout=90)
            assert process.returncode == 0
    assert {(tmp_path / n / "go").read_bytes() for n in "abc"} == {b""}
    assert starts(world) == 1
