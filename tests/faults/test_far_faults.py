"""A computing host whose disk fills, that is away for long, or is only looked at now and then."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.far_site import FarSite, a_far_site, a_gate
from tests.waiting import until

SECONDS = 120.0
DISK_BYTES = 24 << 20
SMALL = "logins_per_minute = 600\nspare_bytes = 1048576\n"
#: The longest time between two looks is 10 s.
AWAY_SECONDS = 15.0
COMMANDS = (
    a_gate()
    + """
[[command]]
name = "count"
host = "ssh:far"
argv = ["/bin/sh", "-c", "echo run >> {gate}.count; wc -c <in.dat >size.txt"]
time_limit_s = 600
[[command.input]]
path = "in.dat"
[[command.output]]
path = "size.txt"

[[command]]
name = "greedy"
host = "ssh:far"
argv = ["/bin/sh", "-c", "echo begun >said.txt; echo run >> {gate}.count; cat /dev/zero >big"]
time_limit_s = 600
[[command.output]]
path = "said.txt"
"""
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[FarSite]:
    with a_far_site(tmp_path, COMMANDS) as site:
        yield site


@pytest.fixture(params=["rsync", "shell"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FarSite]:
    """A site whose computing host has a small disk; inputs go there in either way."""
    what = {"noisy": request.param == "shell", "disk_bytes": DISK_BYTES}
    with a_far_site(tmp_path, COMMANDS, lines=SMALL, **what) as site:
        yield site


def test_inputs_that_find_no_room_end_the_job_unstarted_and_the_next_one_runs(
    small: FarSite, tmp_path: Path
) -> None:
    """The disk fills while the inputs come: before, there was more room than must stay free."""
    given = tmp_path / "in.dat"
    given.write_bytes(b"x" * (16 << 20))
    words = ("--input", given, "--output", "size.txt")
    taken = small.far.disk / "taken"
    taken.write_bytes(bytes(12 << 20))
    with small.place.agent():
        done = small.place.run("count", *words)
        assert (done.json["state"], done.json["code"]) == ("failed", "site.disk_full")
        assert small.lines(".count") == []
        taken.unlink()
        again = small.place.run("count", *words)
        assert again.status == 0, again.out + again.err
    assert (small.results / "size.txt").read_text().split() == [str(16 << 20)]
    assert small.lines(".count") == ["run"]


def test_a_command_that_fills_the_disk_fails_by_itself_and_the_next_one_runs(
    small: FarSite, tmp_path: Path
) -> None:
    """Its exit record has its room from the start; what may leave comes back all the same."""
    with small.place.agent():
        done = small.place.run("greedy", "--output", "said.txt")
        assert (done.status, done.json["state"]) == (1, "failed"), done.out + done.err
        assert done.json["exit_code"] == 1
        assert (small.results / "said.txt").read_text() == "begun\n"
        (filled,) = small.far.disk.glob("jobs/*/*/work/big")
        assert filled.stat().st_size > DISK_BYTES / 2
        filled.unlink()
        (tmp_path / "in.dat").write_bytes(b"x" * 1000)
        again = small.place.run("count", "--input", tmp_path / "in.dat", "--output", "size.txt")
        assert again.status == 0, again.out + again.err
    assert small.lines(".count") == ["run", "run"]


def test_a_host_that_is_away_for_longer_than_any_look_costs_time_and_nothing_else(
    site: FarSite,
) -> None:
    with site.place.agent() as agent:
        job = site.place.submit("gate", "--output", "passed.txt")
        agent.event("run_moved", job=job, stage="running")
        site.far.server.cut()
        site.far.server.stop()
        agent.event("run_waits", job=job)
        site.gate().write_text("meanwhile\n")  # it ends while nobody can see it
        began = time.monotonic()
        until(lambda: time.monotonic() - began > AWAY_SECONDS, "time")
        site.far.server.start()
        assert site.place.wait(job).status == 0
    assert (site.results / "passed.txt").read_text() == "meanwhile\n"
    assert site.lines(".count") == ["run"]


def test_an_agent_that_only_looks_in_at_times_gives_the_same_results(
    site: FarSite, tmp_path: Path
) -> None:
    (tmp_path / "in.dat").write_bytes(b"x" * 1234)
    jobs = [
        site.place.submit("count", "--input", tmp_path / "in.dat", "--output", "size.txt")
        for _ in range(3)
    ]
    hall = site.place.hall
    ended = 0
    for _ in range(30):
        assert hall.call("agent", "--once", "--dir", site.place.home).status in (0, 75)
        told = [hall.call("show", job, "--json").json["state"] for job in jobs]
        ended = told.count("succeeded")
        if ended == len(jobs):
            break
    assert ended == len(jobs)
    for job in jobs:
        assert site.place.wait(job).status == 0
        assert (site.results / "size.txt").read_text().split() == ["1234"]
    assert site.lines(".count") == ["run"] * len(jobs)
