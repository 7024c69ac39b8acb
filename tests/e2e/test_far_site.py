"""Whole jobs on a computing host: the agent stays on the gateway, all else happens there."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sekisho.domain.egress import STDOUT_NAME
from tests.e2e.far_site import FarSite, a_far_site, a_gate, an_open_hall
from tests.e2e.own_site import Hall

COMMANDS = """
[[command]]
name = "count"
host = "ssh:far"
argv = [
    "/bin/sh", "-c",
    "id -u; wc -c <in/in.dat >sum.txt; cat sum.txt in/sub/more.dat >all.txt; pwd",
]
time_limit_s = 600
max_running = 50
[[command.input]]
path = "**"
[[command.output]]
path = "*.txt"
max_files = 2
[command.stdout]
release = true

[[command]]
name = "around"
host = "ssh:far"
argv = ["/bin/sh", "-c", "cat first >middle"]
time_limit_s = 600
before = { argv = ["/bin/sh", "-c", "echo begun | tee first >>{gate}.steps"], time_limit_s = 60 }
after = { argv = ["/bin/sh", "-c", "cp middle last; echo done >>{gate}.steps"], time_limit_s = 60 }
[[command.output]]
path = "last"

[[command]]
name = "stubborn"
host = "ssh:far"
argv = ["/bin/sh", "-c", "trap '' TERM; echo $$ > {gate}.pid; while :; do sleep 1; done"]
time_limit_s = 600
"""


def rsync_version() -> str:
    told = subprocess.run(["rsync", "--version"], check=True, capture_output=True, text=True)
    return told.stdout.split()[2]


@pytest.fixture(scope="module")
def hall(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hall]:
    with an_open_hall(tmp_path_factory.mktemp("hall")) as made:
        yield made


@pytest.fixture(params=["usual", "noisy", "busybox", "csh"])
def site(request: pytest.FixtureRequest, hall: Hall, tmp_path: Path) -> Iterator[FarSite]:
    kind = request.param
    shell = "/bin/csh" if kind == "csh" else None
    what = {"noisy": kind == "noisy", "busybox": kind == "busybox", "shell": shell}
    with a_far_site(tmp_path, COMMANDS + a_gate(), hall, **what) as site:
        yield site


def test_a_job_runs_there_with_its_inputs_and_only_what_may_leave_comes_back(
    site: FarSite, tmp_path: Path
) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "in.dat").write_bytes(b"x" * 3_000_000)
    (tmp_path / "in" / "sub" / "more.dat").write_bytes(b"more\n")
    with site.place.agent():
        done = site.place.run("count", "--input", tmp_path / "in", "--output", "*.txt")
    assert done.status == 0, done.err
    results = site.results
    assert (results / "all.txt").read_text().split() == ["3000000", "more"]
    uid, work = (results / STDOUT_NAME).read_text().split()
    assert uid == str(site.far.uid)
    assert Path(work).is_relative_to(site.base)
    assert sorted(p.name for p in results.iterdir()) == sorted(["all.txt", STDOUT_NAME, "sum.txt"])


def test_what_is_done_before_and_after_is_done_there(site: FarSite) -> None:
    with site.place.agent():
        done = site.place.run("around", "--output", "last")
    assert done.status == 0, done.err
    assert (site.results / "last").read_text() == "begun\n"
    assert site.lines(".steps") == ["begun", "done"]


def test_a_killed_agent_finds_its_running_job_again(site: FarSite) -> None:
    with site.place.agent() as agent:
        job = site.place.submit("gate", "--output", "passed.txt")
        agent.event("run_moved", job=job, stage="running")
        agent.send(signal.SIGKILL)
    site.far.server.cut()
    with site.place.agent():
        site.gate().write_text("through\n")
        assert site.place.wait(job).status == 0
    assert (site.results / "passed.txt").read_text() == "through\n"
    assert site.lines(".count") == ["run"]


def test_a_cancel_ends_what_runs_there(site: FarSite) -> None:
    with site.place.agent() as agent:
        job = site.place.submit("stubborn")
        agent.event("run_moved", job=job, stage="running")
        site.place.hall.must("cancel", job)
        ended = site.place.wait(job)
    assert ended.json["state"] == "cancelled", ended
    pid = "".join(site.lines(".pid"))
    assert not pid or not Path(f"/proc/{pid}/environ").exists()


@pytest.mark.parametrize(
    ("language", "words"), [("en_US", "computing host"), ("ja_JP", "計算ホスト")]
)
def test_the_check_looks_at_the_computing_host(
    hall: Hall, tmp_path: Path, language: str, words: str
) -> None:
    with a_far_site(tmp_path, COMMANDS, hall) as site:
        said = site.place.site("check", "--quick", LC_ALL=f"{language}.UTF-8").out
        assert f"{words}" in said
        assert f"far: rsync {rsync_version()}" in said
        assert "far:/bin/sh" in said
        site.far.server.authorize("# nobody")
        site.far.server.cut()
        checks = {c["check"]: c for c in _found(site)}
        assert checks["host"]["code"] == "ssh.auth"


def test_the_check_names_what_is_wrong_on_the_computing_host(hall: Hall, tmp_path: Path) -> None:
    wrong = COMMANDS.replace('argv = ["/bin/sh", "-c", "trap', 'argv = ["/no/such", "-c", "trap')
    with a_far_site(tmp_path, wrong, hall) as site:
        (site.base.parent / "jobs").mkdir()
        (site.base.parent / "jobs" / "something").touch()
        site.far.give(site.base.parent)
        found = [(c["check"], c["code"]) for c in _found(site)]
        assert ("host", "site.work_base") in found
        (site.base / "something").unlink()
        found = [(c["check"], c["code"]) for c in _found(site)]
        assert ("programs", "check.program_missing") in found
        assert ("host", "site.work_base") not in found


def _found(site: FarSite) -> list[dict[str, Any]]:
    checks: list[dict[str, Any]] = site.place.site("check", "--quick", "--json").json["checks"]
    return checks
