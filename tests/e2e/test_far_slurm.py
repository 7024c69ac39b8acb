"""The gateway's story: agent, ssh, Slurm; each of them real."""

from __future__ import annotations

import json
import re
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.domain.egress import STDOUT_NAME
from tests.e2e.far_site import FarSite, a_far_site, a_gate
from tests.slurm import Slurm, a_slurm
from tests.waiting import until

SWEEP = """
[[command]]
name = "sweep"
host = "ssh:far"
scheduler = "trial"
argv = ["/bin/sh", "-c", "echo $SEKISHO_ELEMENT | tee -a {gate}.points point-$SEKISHO_ELEMENT"]
time_limit_s = 600
resources = { array = { elements = 5, at_once = 2 } }
[[command.output]]
path = "point-*"
max_files = 5
[command.stdout]
release = true
"""
SCHEDULER = """
[scheduler.trial]
dialect = "slurm"
environment = { SLURM_CONF = "@conf@" }
poll_s = 0.2
poll_max_s = 1
settle_s = 1
"""


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    with tempfile.TemporaryDirectory(prefix="slurm-") as base:
        Path(base).chmod(0o755)
        with a_slurm(Path(base) / "s") as slurm:
            yield slurm


@pytest.fixture(scope="module")
def site(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarSite]:
    commands = a_gate("trial") + SWEEP + SCHEDULER.replace("@conf@", str(slurm.conf))
    with a_far_site(tmp_path_factory.mktemp("far"), commands, noisy=True) as site:
        yield site


def test_a_job_goes_through_a_queue_behind_ssh(site: FarSite, slurm: Slurm) -> None:
    with site.place.agent() as agent:
        job = site.place.submit("gate", "--output", "passed.txt")
        agent.event("run_moved", job=job, stage="running")
        assert "main" in slurm.told("squeue", "--noheader", "--user", site.user)
        site.gate().write_text("through\n")
        assert site.place.wait(job).status == 0
    assert (site.results / "passed.txt").read_text() == "through\n"
    assert site.lines(".count") == ["run"]


def test_a_sweep_goes_through_a_queue_behind_ssh(site: FarSite) -> None:
    with site.place.agent():
        job = site.place.submit("sweep", "--output", "point-*")
        assert site.place.wait(job).status == 0
    numbers = [str(n) for n in range(5)]
    assert sorted(site.lines(".points")) == numbers
    assert [(site.results / f"point-{n}").read_text() for n in numbers] == [
        f"{n}\n" for n in numbers
    ]
    log = "".join(f"==> element {n} <==\n{n}\n" for n in numbers)
    assert (site.results / STDOUT_NAME).read_text() == log


def test_agent_line_and_controller_die_and_the_job_has_started_once(
    site: FarSite, slurm: Slurm
) -> None:
    before = len(site.lines(".count"))
    with site.place.agent() as agent:
        job = site.place.submit("gate", "--output", "passed.txt")
        agent.event("run_moved", job=job, stage="running")
        agent.send(signal.SIGKILL)
    site.far.server.cut()
    slurm.kill("slurmctld")
    with site.place.agent() as agent:
        agent.event("run_adopted", job=job)
        slurm.start_controller()
        site.gate().write_text("again\n")
        assert site.place.wait(job).status == 0
    assert len(site.lines(".count")) - before == 1
    # Slurm takes a node out of service that still had the job of a number which it gives anew.
    slurm.told("scontrol", "update", f"NodeName={slurm.host}", "State=RESUME")


def test_a_cancel_reaches_the_queue(site: FarSite, slurm: Slurm) -> None:
    def running() -> set[str]:
        listing = ("squeue", "--noheader", "--states=running", "--format=%A", "--user", site.user)
        return set(slurm.told(*listing).split())

    others = running()  # of a test that killed the controller, perhaps
    with site.place.agent():
        job = site.place.submit("gate")
        until(lambda: running() - others, "a job that runs")
        site.place.hall.must("cancel", job)
        ended = site.place.wait(job).json
        assert ended["state"] == "cancelled", ended
    until(lambda: not running() - others, "a queue where it does not run")


def test_the_check_tries_the_queue_behind_ssh_with_a_harmless_job(
    site: FarSite, slurm: Slurm
) -> None:
    before = slurm.told("squeue", "--noheader", "--states=all", "--format=%F").split()
    told = site.place.site("check", LC_ALL="en_US.UTF-8").out
    assert "batch system: ssh:far: trial: sbatch --time=1 --parsable --no-requeue" in told
    assert re.search(r"batch system: ssh:far: trial: sbatch .* --array=0-1%2 ", told)
    numbers = set(slurm.told("squeue", "-h", "-t", "all", "-o", "%F").split()) - set(before)
    assert len(numbers) == 2  # one as the gate would be, one as the sweep
    for number in numbers:
        seen = rf"batch system: ssh:far: trial: {number}: (waiting, )?(running, )?ended\n"
        assert re.search(seen, told), told
    assert "0 faults" in told
    assert [entry.name for entry in site.base.glob("job_0000000000*")] == []
    assert [entry.name for entry in (site.place.home / "work").glob("job_0000000000*")] == []


def test_the_check_does_not_try_a_queue_behind_a_host_that_is_not_there(site: FarSite) -> None:
    settings = site.place.home / "agent.toml"
    text = settings.read_text()
    settings.write_text(text.replace("[host.far]", "[host.near]"))
    try:
        checks = json.loads(site.place.site("check", "--json").out)["checks"]
    finally:
        settings.write_text(text)
    assert [c["code"] for c in checks if c["check"] == "host"] == ["host.unknown"]
    assert [c["code"] for c in checks if c["check"] == "batch"] == ["check.not_tried"] * 2
