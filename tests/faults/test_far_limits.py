"""Hosts that count logins and kill what is old; lines, servers, agents that die at any moment."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

import sekisho
from tests.e2e.far_site import a_far_site
from tests.farhost import Far

JOBS: Final = 100
LOGINS_PER_MINUTE: Final = 10
#: Everything of the account that is older is killed.
OLDEST_S: Final = 6.0
COMMANDS: Final = """
[[command]]
name = "mark"
host = "ssh:far"
argv = ["/bin/sh", "-c", "echo {n} >>{gate}.witness; echo {n} >out.txt", "mark"]
time_limit_s = 600
max_running = 20
[command.parameters]
n = { type = "integer", minimum = 0, maximum = 1000 }
[[command.output]]
path = "out.txt"
required = true
"""


def _age_s(pid: int) -> float:
    """Return for how long a process has been there."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    up = float(Path("/proc/uptime").read_text().split()[0])
    return up - ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def killing(far: Far, killed: list[int]) -> Iterator[None]:
    """Kill whatever serves a connection for too long, as strict hosts do, until the block ends."""
    done = threading.Event()

    def sweep() -> None:
        while not done.wait(0.5):
            for pid in far.server.children():
                with suppress(OSError):
                    if _age_s(pid) > OLDEST_S:
                        os.kill(pid, signal.SIGKILL)
                        killed.append(pid)

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        yield
    finally:
        done.set()
        sweeper.join()


@pytest.mark.time_limit(900)
def test_a_hundred_jobs_on_a_host_that_counts_logins_and_kills_what_is_old(tmp_path: Path) -> None:
    killed: list[int] = []
    few = f"logins_per_minute = {LOGINS_PER_MINUTE}\n"
    with a_far_site(tmp_path, COMMANDS, lines=few, noisy=True) as site:
        manifest = site.place.home / "manifest.toml"
        manifest.write_text(manifest.read_text().replace("max_running = 4", "max_running = 20"))
        began = time.monotonic()
        with (
            site.place.agent(),
            killing(site.far, killed),
            sekisho.connect(site.place.hall.environ["SEKISHO_CONFIG"]) as client,
            ThreadPoolExecutor(JOBS) as pool,
        ):
            specs = [a_mark(site.place.name, n) for n in range(JOBS)]
            jobs = [client.submit(spec) for spec in specs]
            ends = list(pool.map(lambda job: job.wait(500).state, jobs))
        minutes = (time.monotonic() - began) / 60
        assert ends == ["succeeded"] * JOBS
        assert sorted(map(int, site.lines(".witness"))) == list(range(JOBS))
        assert killed
        assert site.far.server.logins <= LOGINS_PER_MINUTE * (minutes + 1)


def test_whatever_is_killed_at_any_moment_every_job_starts_once(tmp_path: Path) -> None:
    """Kills agents, and what serves their connections, at moments that nobody chose."""
    moments = random.Random(7)
    pause = threading.Event()
    with a_far_site(tmp_path, COMMANDS) as site:
        with sekisho.connect(site.place.hall.environ["SEKISHO_CONFIG"]) as client:
            jobs = [client.submit(a_mark(site.place.name, n)) for n in range(12)]
            for _ in range(5):
                with site.place.agent() as agent:
                    for _ in range(3):
                        pause.wait(moments.uniform(0.1, 1.0))
                        site.far.server.cut()
                    agent.send(signal.SIGKILL)
            with site.place.agent():
                ends = [job.wait(200).state for job in jobs]
        assert ends == ["succeeded"] * len(jobs)
        assert sorted(map(int, site.lines(".witness"))) == list(range(len(jobs)))


def a_mark(site: str, n: int) -> sekisho.JobSpec:
    """Return a job that leaves its number with the witness, and in its output."""
    return sekisho.JobSpec(site=site, command="mark", parameters={"n": n}, outputs=["out.txt"])
