"""Gate and carrier end at every durable step, and at random: one fate, one start, one result."""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from sekisho.adapters.durable import CRASH_STATUS, CRASHPOINTS
from sekisho.adapters.lane_gate import GateLane
from sekisho.adapters.patience import Patience
from sekisho.adapters.sitelog_directory import verify_log
from sekisho.client.client import Client, new_job_id
from sekisho.client.spec import JobSpec
from tests.forked import Forked
from tests.gated import SITE, GatedSite, Local, gated_site, local_gate

STEPS = (1, 2, 3, 5, 8, 12)
RANDOM_SECONDS = 12


@dataclass
class Gates:
    """Every gate process of a test; the first is armed."""

    site: GatedSite
    armed: str = ""

    def __post_init__(self) -> None:
        self.running: list[Forked] = []

    def open(self) -> Local:
        environ = {"SEKISHO_CRASHPOINT": self.armed} if self.armed else {}
        self.armed = ""
        session = local_gate(self.site.home, environ=environ)
        self.running.append(session.process)
        return session


@contextmanager
def caller(gates: Gates) -> Iterator[tuple[Client, GateLane]]:
    patience = Patience(limit_s=60, wait=lambda s: threading.Event().wait(min(s, 0.05)))
    lane = GateLane(SITE, gates.open, patience)
    client = Client(lane)
    try:
        yield client, lane
    finally:
        client.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[GatedSite]:
    made = gated_site(tmp_path)
    yield made
    made.go.touch()
    made.kill_carrier()


def a_witnessed(place: Path, content: bytes) -> JobSpec:
    source = place / f"in-{content[:8].hex()}"
    source.write_bytes(content)
    return JobSpec(site=SITE, command="witnessed", inputs={"in.txt": source}, outputs=["out.txt"])


def starts_of(site: GatedSite, job: str) -> int:
    words = site.witness.read_text().splitlines() if site.witness.exists() else []
    return sum(job in word for word in words)


@pytest.mark.parametrize("label", [name for name in CRASHPOINTS if not name.startswith("store.")])
def test_a_job_outlives_a_crash_at_every_step(site: GatedSite, tmp_path: Path, label: str) -> None:
    """P1 to P4. The first gate, and the carrier that it forks, end at the nth step ``label``."""
    crashed = 0
    for nth in STEPS:
        content = os.urandom(700_000)
        gates = Gates(site, f"{label}:{nth}")
        with caller(gates) as (client, lane):
            job = client.submit(a_witnessed(tmp_path, content), job_id=new_job_id())
            lane.close()  # the armed gate has done its part
            first = job.result(tmp_path / f"one{nth}").files[0].read_bytes()
            again = client.job(job.id).result(tmp_path / f"two{nth}").files[0].read_bytes()
        assert first == again == content * 2, nth
        assert starts_of(site, job.id) == 1, nth
        crashed += gates.running[0].returncode == CRASH_STATUS
        site.kill_carrier()
    adopted = (site.push / "carrier.log").read_text().count("run_adopted")
    assert crashed + adopted >= 2
    assert verify_log(site.home / "state")[1] is None


def test_jobs_outlive_kills_at_random_moments(site: GatedSite, tmp_path: Path) -> None:
    gates = Gates(site)
    dice = random.Random(2026)
    end = time.monotonic() + RANDOM_SECONDS
    done = threading.Event()

    def kill() -> None:
        while not done.wait(dice.uniform(0.02, 0.6)) and time.monotonic() < end:
            victims = [p for p in gates.running if p.poll() is None]
            if dice.random() < 0.5 or not victims:
                site.kill_carrier()
            else:
                dice.choice(victims).send_signal(signal.SIGKILL)

    def one(number: int) -> tuple[bytes, bytes, str]:
        content = number.to_bytes(8) * 40_000
        job = client.submit(a_witnessed(tmp_path, content))
        files = job.result(tmp_path / f"out{number}").files
        return content * 2, files[0].read_bytes(), job.id

    killer = threading.Thread(target=kill)
    with caller(gates) as (client, _):
        killer.start()
        try:
            with ThreadPoolExecutor(3) as threads:
                numbers = itertools.takewhile(lambda _: time.monotonic() < end, range(24))
                results = list(threads.map(one, numbers))
        finally:
            done.set()
            killer.join()
    for expected, found, job in results:
        assert found == expected
        assert starts_of(site, job) == 1
    assert len(results) > 3
    assert verify_log(site.home / "state")[1] is None


def test_many_gates_at_once_have_one_carrier(site: GatedSite) -> None:
    """Every gate wants one at the same moment; the lock names it, and the journal has one owner."""
    gates = Gates(site)
    with caller(gates) as (client, _), ThreadPoolExecutor(6) as threads:
        spec = JobSpec(site=SITE, command="noop")
        jobs = list(threads.map(lambda _: client.submit(spec), range(12)))
        assert {job.wait().state for job in jobs} == {"succeeded"}
    log = (site.push / "carrier.log").read_text()
    assert "carrier_crashed" not in log
    assert log.count("run_moved") >= 12


def test_what_is_added_while_a_carrier_leaves_is_carried(site: GatedSite) -> None:
    """Carriers that leave as soon as nothing is owed, and jobs that come just then."""
    hurried = "import sekisho.compose.gate as g; g.LINGER_SECONDS = 0.01; g._LOOKS = 1"
    opened = partial(local_gate, site.home, first=hurried)
    client = Client(GateLane(SITE, opened, Patience(limit_s=30)))
    carriers = set()
    for _ in range(20):
        job = client.submit(JobSpec(site=SITE, command="noop"))
        carriers.add(site.carrier())
        assert job.wait().state == "succeeded"
    client.close()
    assert len(carriers) > 3
    assert "carrier_crashed" not in (site.push / "carrier.log").read_text()


def test_a_command_starts_with_no_signal_ignored(site: GatedSite, tmp_path: Path) -> None:
    manifest = site.home / "manifest.toml"
    command = '[[command]]\nname = "signals"\nargv = ["/bin/cat", "/proc/self/status"]\n'
    rest = 'time_limit_s = 60\nstdout = { release = true, max_bytes = "64 KiB" }\n'
    manifest.write_text(f"{manifest.read_text()}\n{command}{rest}")
    with caller(Gates(site)) as (client, _):
        job = client.submit(JobSpec(site=SITE, command="signals"))
        text = job.result(tmp_path / "out").files[0].read_text()
    ignored = next(line for line in text.splitlines() if line.startswith("SigIgn"))
    assert int(ignored.split()[1], 16) == 0
