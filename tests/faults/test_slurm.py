"""What only a Slurm says: who cancelled, which limit it was, preemption, a node that failed."""

from __future__ import annotations

import sys

import pytest

from tests.engines import SECONDS, SLURM, Batch, a_batch, only
from tests.faults.trio import Trio
from tests.waiting import until

pytestmark = pytest.mark.time_limit(600)
GREEDY = "import time; kept = bytearray(400_000_000); time.sleep(60)"


@only(SLURM)
@pytest.mark.parametrize("waiting", [True, False])
def test_what_somebody_at_the_site_cancels_has_failed_and_says_so(
    site: Trio, batch: Batch, *, waiting: bool
) -> None:
    if waiting:
        batch.close()
    with site.connect() as client:
        job = client.submit(site.spec("one", "gate"))
        until(lambda: batch.queue() if waiting else site.starts()["one"], "a job")
        batch.told("scancel", *batch.queue())
        ended = job.wait(timeout=SECONDS)
    assert (ended.state, ended.code) == ("failed", "scheduler.cancelled")
    assert site.starts()["one"] == (0 if waiting else 1)


@only(SLURM)
def test_slurms_limits_of_time_and_memory_are_told_as_what_they_are(
    still: Trio, batch: Batch
) -> None:
    """Also with a limit of ours that would come later, and while two jobs run."""
    resources = 'resources = { wall_time_s = 60, memory = "100 MiB" }'
    batch.through(still, command=resources)
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
    with a_batch(SLURM, lines, cpus=1) as batch:
        batch.through(still, command="idempotent = true" if idempotent else "")
        still.start_broker()
        still.start_agent()
        with still.connect() as client:
            job = client.submit(still.spec("one", "gate"))
            batch.running(still)
            urgent = ("--partition=urgent", "--output=/dev/null", "--wrap=/bin/true")
            assert batch.told("sbatch", "--chdir=/", *urgent).startswith("Submitted")
            if idempotent:
                until(lambda: still.starts()["one"] == 2, "a second start")
                still.open_gate()
                assert job.wait(timeout=SECONDS).state == "succeeded"
            else:
                ended = job.wait(timeout=SECONDS)
                assert (ended.state, ended.code) == ("failed", "scheduler.preempted")
    assert still.starts() == {"one": 1 + idempotent}


def test_a_failed_node_leaves_an_unknown_fate_and_nothing_is_guessed(still: Trio) -> None:
    """Whether a node that does not answer still computes, nobody outside can know."""
    with a_batch(SLURM, node_timeout_s=10) as batch:
        batch.through(still)
        still.start_broker()
        still.start_agent()
        with still.connect() as client:
            job = client.submit(still.spec("one", "gate"))
            number = batch.running(still)
            batch.kill_node()
            assert job.wait(timeout=SECONDS).state == "lost"
            assert batch.queue()[number] == "NODE_FAIL"
            still.open_gate()
            batch.start_node()
    assert still.starts() == {"one": 1}
