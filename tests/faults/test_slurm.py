"""Whole jobs through a real Slurm that breaks, is administered, and says no: honest ends."""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from sekisho.adapters.schedulers.control import SCRIPT_TEXT
from tests.batch import through
from tests.faults.program import call
from tests.faults.trio import Trio
from tests.slurm import Slurm, a_slurm

pytestmark = pytest.mark.time_limit(600)
SECONDS = 240.0
GREEDY = "import time; kept = bytearray(400_000_000); time.sleep(60)"


@pytest.fixture
def slurm() -> Iterator[Slurm]:
    with tempfile.TemporaryDirectory(prefix="slurm-") as base, a_slurm(Path(base) / "s") as slurm:
        yield slurm


@pytest.fixture
def site(still: Trio, slurm: Slurm) -> Trio:
    """A broker and an agent whose command runs through Slurm."""
    through(still, slurm.environment)
    still.start_broker()
    still.start_agent()
    return still


def queue(slurm: Slurm) -> dict[str, str]:
    """Return state by number of all jobs that Slurm still knows."""
    told = slurm.told("squeue", "-h", "-t", "all", "-o", "%A|%T").split()
    return {number: state for number, _, state in (line.partition("|") for line in told)}


def until(claim: Callable[[], object], what: str) -> None:
    end = time.monotonic() + SECONDS
    while not claim():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def running(slurm: Slurm, trio: Trio, key: str = "one") -> str:
    """Return the number of the job that runs, when its command has started."""
    until(lambda: trio.starts()[key], "a start")
    return next(number for number, state in queue(slurm).items() if state == "RUNNING")


def test_a_job_is_accepted_while_it_waits_and_running_when_it_runs(
    site: Trio, slurm: Slurm, tmp_path: Path
) -> None:
    slurm.told("scontrol", "update", "PartitionName=main", "State=DOWN")
    with site.connect() as client:
        job = client.submit(site.spec("one", "gate", source=site.some_input()))
        until(lambda: "PENDING" in queue(slurm).values(), "a waiting job")
        assert site.states()[job.id] == "accepted"
        slurm.told("scontrol", "update", "PartitionName=main", "State=UP")
        running(slurm, site)
        site.broker.event("job_changed", job=job.id, state="running", seconds=SECONDS)
        site.open_gate()
        assert job.result(tmp_path / "out", timeout=SECONDS).state == "succeeded"
    assert (tmp_path / "out/out/in/given").read_bytes() == site.some_input().read_bytes()
    assert site.starts() == {"one": 1}


@pytest.mark.parametrize("waiting", [True, False])
def test_a_cancel_reaches_the_job_in_slurm(site: Trio, slurm: Slurm, *, waiting: bool) -> None:
    if waiting:
        slurm.told("scontrol", "update", "PartitionName=main", "State=DOWN")
    with site.connect() as client:
        job = client.submit(site.spec("one", "gate"))
        until(lambda: queue(slurm) if waiting else site.starts()["one"], "a job")
        job.cancel()
        assert job.wait(timeout=SECONDS).state == "cancelled"
    assert set(queue(slurm).values()) == {"CANCELLED"}
    assert site.starts()["one"] == (0 if waiting else 1)


@pytest.mark.parametrize("waiting", [True, False])
def test_what_somebody_at_the_site_cancels_has_failed_and_says_so(
    site: Trio, slurm: Slurm, *, waiting: bool
) -> None:
    if waiting:
        slurm.told("scontrol", "update", "PartitionName=main", "State=DOWN")
    with site.connect() as client:
        job = client.submit(site.spec("one", "gate"))
        until(lambda: queue(slurm) if waiting else site.starts()["one"], "a job")
        slurm.told("scancel", *queue(slurm))
        ended = job.wait(timeout=SECONDS)
    assert (ended.state, ended.code) == ("failed", "scheduler.cancelled")
    assert site.starts()["one"] == (0 if waiting else 1)


def test_a_controller_that_is_away_costs_time_and_nothing_else(
    site: Trio, slurm: Slurm, tmp_path: Path
) -> None:
    with site.connect() as client:
        first = client.submit(site.spec("one", "gate"))
        running(slurm, site)
        time.sleep(6)  # Slurm writes its state down some seconds late
        slurm.kill("slurmctld")
        site.open_gate()
        second = client.submit(site.spec("two"))
        site.agent.event("run_waits", job=second.id, seconds=SECONDS)
        slurm.start_controller()
        assert first.result(tmp_path / "one", timeout=SECONDS).state == "succeeded"
        assert second.result(tmp_path / "two", timeout=SECONDS).state == "succeeded"
    assert site.starts() == {"one": 1, "two": 1}


def test_a_controller_that_forgets_what_it_took_starts_nothing_twice(
    site: Trio, slurm: Slurm
) -> None:
    with site.connect() as client:
        job = client.submit(site.spec("one", "2"))
        until(partial(queue, slurm), "a job")
        slurm.kill("slurmctld")  # before it has written anything down
        slurm.start_controller()
        assert job.wait(timeout=SECONDS).state in ("succeeded", "lost")
    assert site.starts()["one"] == 1


def test_a_job_outlives_the_daemon_of_its_node(site: Trio, slurm: Slurm, tmp_path: Path) -> None:
    with site.connect() as client:
        job = client.submit(site.spec("one", "gate"))
        running(slurm, site)
        slurm.kill("slurmd")
        site.open_gate()
        until((site.site / "work" / job.id / "1/control/exit").exists, "an exit record")
        slurm.start_node()
        assert job.result(tmp_path / "one", timeout=SECONDS).state == "succeeded"
    assert site.starts() == {"one": 1}


def test_a_requeued_job_does_not_run_again(site: Trio, slurm: Slurm) -> None:
    with site.connect() as client:
        job = client.submit(site.spec("one", "gate"))
        number = running(slurm, site)
        assert "disabled" in slurm.told("scontrol", "requeue", number)  # we said --no-requeue
        slurm.told("scontrol", "update", f"JobId={number}", "Requeue=1")
        slurm.told("scontrol", "requeue", number)
        ended = job.wait(timeout=SECONDS)
    assert (ended.state, ended.exit_code) == ("failed", 143)  # Slurm ended its one run by TERM
    assert site.starts() == {"one": 1}


def test_a_held_job_waits_until_it_is_released(site: Trio, slurm: Slurm) -> None:
    slurm.told("scontrol", "update", "PartitionName=main", "State=DOWN")
    with site.connect() as client:
        job = client.submit(site.spec("one"))
        until(partial(queue, slurm), "a job")
        slurm.told("scontrol", "hold", *queue(slurm))
        slurm.told("scontrol", "update", "PartitionName=main", "State=UP")
        time.sleep(5)  # longer than a missing job would be waited for
        assert site.states()[job.id] == "accepted"
        slurm.told("scontrol", "release", *queue(slurm))
        assert job.wait(timeout=SECONDS).state == "succeeded"


def test_slurms_limits_of_time_and_memory_are_told_as_what_they_are(
    still: Trio, slurm: Slurm
) -> None:
    """Also with a limit of ours that would come later, and while two jobs run."""
    resources = 'resources = { wall_time_s = 60, memory = "100 MiB" }'
    through(still, slurm.environment, command=resources)
    eat = still.home / "work.sh"
    eat.write_text(
        eat.read_text().replace(
            "mkdir out",
            f"[ \"$1\" = eats ] && {sys.executable} -I -S -c '{GREEDY}'; mkdir out",
        )
    )
    still.start_broker()
    still.start_agent()
    with still.connect() as client:
        waits = client.submit(still.spec("waits", "gate"))
        eats = client.submit(still.spec("eats", "2"))
        ended = eats.wait(timeout=SECONDS)
        assert (ended.state, ended.code) == ("failed", "limit.memory")
        ended = waits.wait(timeout=SECONDS)
        assert (ended.state, ended.code) == ("failed", "limit.time")
    assert still.starts() == {"waits": 1, "eats": 1}


def test_a_killed_agent_finds_its_jobs_in_slurm(site: Trio, slurm: Slurm, tmp_path: Path) -> None:
    with site.connect() as client:
        job = client.submit(site.spec("one", "gate"))
        running(slurm, site)
        site.agent.kill()
        site.open_gate()
        site.start_agent()
        assert job.result(tmp_path / "one", timeout=SECONDS).state == "succeeded"
    assert site.starts() == {"one": 1}
    assert len(queue(slurm)) == 1


def test_an_agent_that_only_looks_in_now_and_then_gives_the_same_results(
    still: Trio, slurm: Slurm, tmp_path: Path
) -> None:
    through(still, slurm.environment)
    still.start_broker()
    with still.connect() as client:
        jobs = [client.submit(still.spec(f"job-{n}", source=still.some_input())) for n in range(3)]
        for _ in range(60):
            call(still.environ, "agent", "--once", "--dir", still.site, status=None)
            if all(state == "succeeded" for state in still.states().values()):
                break
        for n, job in enumerate(jobs):
            assert job.result(tmp_path / job.id, timeout=SECONDS).state == "succeeded"
            given = (tmp_path / job.id / "out/in/given").read_bytes()
            assert given == still.some_input().read_bytes()
            assert (tmp_path / job.id / "out/key").read_text() == f"job-{n}"
    assert still.starts() == {f"job-{n}": 1 for n in range(3)}


def test_the_check_submits_a_harmless_job_and_shows_what_it_sees(still: Trio, slurm: Slurm) -> None:
    through(still, slurm.environment)
    still.start_broker()
    check = ("site", "check", "--dir", still.site)
    told, _ = call(still.environ | {"LC_ALL": "en_US.UTF-8"}, *check, status=None)
    assert "batch system: trial: sbatch --time=1 --parsable --no-requeue --export=NIL" in told
    number = max(queue(slurm), key=int)
    assert re.search(rf"batch system: trial: {number}: (waiting, )?(running, )?ended\n", told)
    script, _ = call(still.environ, "site", "check", "--script")
    assert script.rstrip("\n") == SCRIPT_TEXT.rstrip("\n")
    through(still, slurm.environment, command='resources = { queue = "nope" }')
    told, _ = call(still.environ | {"LC_ALL": "ja_JP.UTF-8"}, *check, status=1)
    assert "バッチシステム [scheduler.refused]" in told
    assert "invalid partition specified: nope" in told
    assert list((still.site / "work").glob("job_*")) == []


@pytest.mark.parametrize("mode", ["CANCEL", "REQUEUE"])
@pytest.mark.parametrize("idempotent", [False, True])
def test_a_preempted_job_says_so_and_only_an_idempotent_command_is_started_again(
    still: Trio, mode: str, *, idempotent: bool
) -> None:
    """The node has room for one job; somebody's urgent one comes."""
    lines = (
        "PreemptType=preempt/partition_prio",
        f"PreemptMode={mode}",
        "PartitionName=urgent Nodes=ALL PriorityTier=10 MaxTime=INFINITE State=UP",
    )
    with (
        tempfile.TemporaryDirectory(prefix="slurm-") as base,
        a_slurm(Path(base) / "s", lines, cpus=1) as slurm,
    ):
        through(still, slurm.environment, command="idempotent = true" if idempotent else "")
        still.start_broker()
        still.start_agent()
        with still.connect() as client:
            job = client.submit(still.spec("one", "gate"))
            running(slurm, still)
            urgent = ("--partition=urgent", "--output=/dev/null", "--wrap=/bin/true")
            assert slurm.told("sbatch", "--chdir=/", *urgent).startswith("Submitted")
            if idempotent:
                until(lambda: still.starts()["one"] == 2, "a second start")
                still.open_gate()
                assert job.wait(timeout=SECONDS).state == "succeeded"
            else:
                ended = job.wait(timeout=SECONDS)
                assert (ended.state, ended.code) == ("failed", "scheduler.preempted")
    assert still.starts() == {"one": 1 + idempotent}


@pytest.mark.time_limit(1800)
def test_two_hundred_jobs_pass_a_queue_that_holds_ten(still: Trio) -> None:
    """The limit is waited for: no job fails of it, and each starts once."""
    count = 200
    with (
        tempfile.TemporaryDirectory(prefix="slurm-") as base,
        a_slurm(Path(base) / "s", most_jobs=10, forget_s=2) as slurm,
    ):
        through(still, slurm.environment, running=count)
        still.start_broker()
        still.start_agent()
        with still.connect() as client:
            jobs = [client.submit(still.spec(f"job-{n}")) for n in range(count)]
            most = 0
            end = time.monotonic() + 4 * SECONDS
            while set(still.states().values()) != {"succeeded"}:
                assert time.monotonic() < end, still.states()
                most = max(most, len(queue(slurm)))
                time.sleep(0.5)
            assert {job.wait(timeout=SECONDS).state for job in jobs} == {"succeeded"}
    assert 5 <= most <= 10
    assert still.starts() == {f"job-{n}": 1 for n in range(count)}


def test_a_failed_node_leaves_an_unknown_fate_and_nothing_is_guessed(still: Trio) -> None:
    """Whether a node that does not answer still computes, nobody outside can know."""
    with (
        tempfile.TemporaryDirectory(prefix="slurm-") as base,
        a_slurm(Path(base) / "s", node_timeout_s=10) as slurm,
    ):
        through(still, slurm.environment)
        still.start_broker()
        still.start_agent()
        with still.connect() as client:
            job = client.submit(still.spec("one", "gate"))
            number = running(slurm, still)
            slurm.kill("slurmd")
            assert job.wait(timeout=SECONDS).state == "lost"
            assert queue(slurm)[number] == "NODE_FAIL"
            still.open_gate()
            slurm.start_node()
    assert still.starts() == {"one": 1}
