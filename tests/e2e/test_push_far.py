"""Jobs that are pushed through a gate and run on a computing host behind it; all of it real."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Event

import pytest

from sekisho.adapters.lane_gate import GateLane
from sekisho.adapters.patience import Patience
from sekisho.client.client import Client
from sekisho.client.spec import JobSpec
from sekisho.compose.gate import gate
from sekisho.config.site import load_site
from sekisho.site.gate import Gate
from tests.e2e.far_site import host_far
from tests.farhost import Far, far_host
from tests.gated import SITE, USER, GatedSite, gated_site, local_gate

SECONDS = 120.0
COMMAND = """
[[command]]
name = "far"
host = "ssh:far"
argv = ["/bin/sh", "-c", "id -u > who.txt"]
time_limit_s = 60
[[command.output]]
path = "who.txt"
"""


@dataclass
class Days:
    """A clock that is ahead."""

    ahead: timedelta

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def monotonic(self) -> float:
        return self.ahead.total_seconds()


@dataclass
class FarGate:
    """A gated site, and a host behind it whose jobs lie below ``base``."""

    site: GatedSite
    far: Far
    base: Path

    def client(self) -> Client:
        patience = Patience(limit_s=SECONDS, wait=lambda s: Event().wait(min(s, 0.2)))
        return Client(GateLane(SITE, partial(local_gate, self.site.home), patience))

    def later(self, days: float) -> Gate:
        """Return alice's gate as it will be in so many days."""
        the_gate, _ = gate(load_site(self.site.home), USER, io.BytesIO(), io.BytesIO())
        return replace(the_gate, clock=Days(timedelta(days=days)))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[FarGate]:
    with far_host(tmp_path) as far:
        site = gated_site(tmp_path)
        base = far.room() / "jobs"
        with (site.home / "agent.toml").open("a") as settings:
            settings.write(host_far(tmp_path, base))
        with (site.home / "manifest.toml").open("a") as manifest:
            manifest.write(COMMAND)
        try:
            yield FarGate(site, far, base)
        finally:
            site.kill_carrier()


def test_a_pushed_job_on_another_host_is_removed_there_when_its_time_is_over(
    house: FarGate, tmp_path: Path
) -> None:
    client = house.client()
    jobs = [client.submit(JobSpec(site=SITE, command="far", outputs=("*",))) for _ in range(2)]
    for job in jobs:
        assert job.result(tmp_path / job.id, timeout=SECONDS).state == "succeeded"
        assert (tmp_path / job.id / "who.txt").read_text() == f"{house.far.uid}\n"
    client.close()
    names = {job.id for job in jobs}
    (house.base / "other").mkdir()
    (house.base / "other" / "kept").touch()

    house.later(days=29).tidy()
    assert {entry.name for entry in house.base.glob("job_*")} == names

    house.far.server.cut()
    house.far.server.stop()
    house.later(days=31).tidy()
    assert {entry.name for entry in house.base.glob("job_*")} == names

    house.far.server.start()
    house.later(days=31).tidy()
    assert list(house.base.glob("job_*")) == []
    assert (house.base / "other" / "kept").exists()
    assert house.later(days=31).jobs(None).jobs == []
