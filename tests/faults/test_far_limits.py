"""A host that counts logins and kills what is old: a hundred jobs, each once, and few logins."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import sekisho
from tests.e2e.far_site import a_far_site, an_open_hall
from tests.farhost import Far, far_host

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


def test_a_hundred_jobs_on_a_host_that_counts_logins_and_kills_what_is_old(tmp_path: Path) -> None:
    killed: list[int] = []
    home = tmp_path / "hall"
    home.mkdir()
    with far_host(tmp_path, noisy=True) as far, an_open_hall(home) as hall:
        site = a_far_site(
            hall, far, tmp_path / "ssh_config", COMMANDS, logins_per_minute=LOGINS_PER_MINUTE
        )
        manifest = site.place.home / "manifest.toml"
        manifest.write_text(manifest.read_text().replace("max_running = 4", "max_running = 20"))
        began = time.monotonic()
        with (
            site.place.agent(),
            killing(far, killed),
            sekisho.connect(hall.environ["SEKISHO_CONFIG"]) as client,
            ThreadPoolExecutor(JOBS) as pool,
        ):
            specs = [
                sekisho.JobSpec(
                    site=site.place.name, command="mark", parameters={"n": n}, outputs=["out.txt"]
                )
                for n in range(JOBS)
            ]
            jobs = [client.submit(spec) for spec in specs]
            ends = list(pool.map(lambda job: job.wait(500).state, jobs))
        minutes = (time.monotonic() - began) / 60
        assert ends == ["succeeded"] * JOBS
        assert sorted(map(int, site.lines(".witness"))) == list(range(JOBS))
        assert killed
        assert far.server.logins <= LOGINS_PER_MINUTE * (minutes + 1)
