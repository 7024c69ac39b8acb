"""What a running job shows, as its submitter sees it: pull mode and a gated site."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.client.snapshot import Snapshot
from sekisho.client.spec import JobSpec
from sekisho.wire.v1 import JobView
from tests.e2e.own_site import Hall, Place, a_hall
from tests.forked import Forked
from tests.gated import gate_client, gated_house

COMMANDS = """
[[command]]
name = "long"
argv = ["/bin/sh", "-c", "echo secret > mesh; echo 1,2 > life.csv; echo 41 > done; cat {gate} >end"]
time_limit_s = 600
[command.publish]
every_s = 2
progress = "done"
[[command.publish.file]]
path = "life.csv"
[[command.output]]
path = "*"
max_files = 9
"""
SECONDS = 60


@pytest.fixture(scope="module")
def hall(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hall]:
    home = tmp_path_factory.mktemp("hall")
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8"}
    environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    with a_hall(home, environ) as made:
        yield made


@pytest.fixture
def place(hall: Hall) -> Iterator[Place]:
    made = hall.joined(commands=COMMANDS)
    with made.agent():
        yield made


def first_snapshot(place: Place, job: str) -> dict[str, object]:
    """Return what `sekisho show` tells once there is something to see."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        told: dict[str, object] = json.loads(place.hall.must("show", job, "--json"))
        if "progress" in told:
            return told
    raise AssertionError("nothing was published")


def test_a_running_job_shows_its_progress_and_its_files(place: Place, tmp_path: Path) -> None:
    job = place.submit("long", "-o", "*")
    told = first_snapshot(place, job)
    assert (told["state"], told["progress"], told["published"]) == ("running", 41, "life.csv")
    fetched = place.hall.call("fetch", job, "--so-far", "--into", tmp_path / "now")
    assert fetched.out.split() == [str(tmp_path / "now" / "life.csv")]
    assert (tmp_path / "now" / "life.csv").read_text() == "1,2\n"
    log = place.site("log").out
    assert "published" in log
    place.gate.write_text("end")
    assert place.wait(job).status == 0


def test_who_waits_sees_the_progress(place: Place, tmp_path: Path) -> None:
    job = place.submit("long")
    words = ("wait", job, "--into", tmp_path / "out")
    with Forked(words, env=place.hall.environ, stderr=subprocess.PIPE) as waiting:
        assert waiting.stderr
        try:
            assert any("41 %" in line for line in waiting.stderr)
        finally:
            place.gate.write_text("end")
        waiting.communicate()
    assert waiting.returncode == 0


def test_a_job_that_publishes_nothing_says_so(place: Place) -> None:
    job = place.submit("hello")
    place.wait(job)
    done = place.hall.call("fetch", job, "--so-far")
    assert done.status != 0
    assert "snapshot.not_found" in done.err


def test_a_gated_site_shows_the_same(tmp_path: Path) -> None:
    with gated_house(tmp_path) as house, gate_client(house, tmp_path) as client:
        job = client.submit(JobSpec(site="kobe", command="shown", outputs=["*"]))
        seen: list[Snapshot] = []
        ended = threading.Event()

        def look(view: JobView) -> None:
            if view.snapshots:
                seen.append(told(job.snapshot()))

        def wait() -> None:
            job.wait(on_change=look)
            ended.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        end = time.monotonic() + SECONDS
        while not seen and time.monotonic() < end:
            client.job(job.id)
        house.site.go.touch()
        assert ended.wait(SECONDS)
        waiting.join()
        assert (seen[0].progress, dict(seen[0].files)) == (41, {"life.csv": b"1,2\n"})
        last = client.job(job.id).snapshot()
        assert last is not None
        assert last.write(tmp_path / "now") == (tmp_path / "now" / "life.csv",)


def told(snapshot: Snapshot | None) -> Snapshot:
    assert snapshot is not None
    return snapshot
