"""Sweeps through real batch systems: one job, many elements, each started once, honest ends."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import Counter
from pathlib import Path

import pytest

from sekisho.domain.egress import STDOUT_NAME
from tests.engines import SECONDS, SLURM, Batch, a_batch, only
from tests.faults.program import call
from tests.faults.trio import Trio
from tests.waiting import until

pytestmark = pytest.mark.time_limit(600)
#: Waits at a gate that lets everybody pass once it is open; 7 fails when its key says so.
SWEEP = """\
element=$SEKISHO_ELEMENT
mkdir -p out
: >{home}/going.$element
ls {home} | grep -c '^going' >>{home}/together
printf '%s\\n' "$1-$element" >>{home}/witness && sync {home}/witness || exit 99
case $2 in gate) until [ -e {home}/opened ]; do sleep 0.1; done ;; *) sleep "$2" ;; esac
rm {home}/going.$element
printf '%s of %s' "$element" "$SEKISHO_ELEMENTS" >out/$element
echo "said $element"
[ "$1" != fails ] || [ "$element" != 7 ] || exit 3
"""


def a_sweep(still: Trio, batch: Batch, elements: int, at_once: int) -> Trio:
    """Return broker and agent of a site whose command is an array in the batch system."""
    array = f"resources = {{ array = {{ elements = {elements}, at_once = {at_once} }} }}"
    batch.through(still, command=array)
    (still.home / "work.sh").write_text(SWEEP.format(home=still.home))
    still.start_broker()
    still.start_agent()
    return still


def started(site: Trio, count: int) -> None:
    until(lambda: len(site.starts()) == count, "starts")


def running(batch: Batch, site: Trio, count: int) -> list[str]:
    """Return the numbers, as 1_7, of the elements that run in Slurm when so many have started."""
    started(site, count)
    told = batch.told("squeue", "-h", "-r", "-t", "running", "-o", "%F_%K").split()
    return sorted(told)


def over(batch: Batch, element: str) -> bool:
    """Say whether nothing of an element, named as 1_7, runs in Slurm or is being ended by it."""
    listed = batch.told("squeue", "-h", "-r", "-t", "running,completing", "-o", "%F_%K").split()
    return element not in listed


def each_once(key: str, numbers: range) -> Counter[str]:
    return Counter(f"{key}-{number}" for number in numbers)


def opened(site: Trio) -> None:
    (site.home / "opened").touch()


def test_a_sweep_outlives_its_master_and_its_agent_and_starts_each_element_once(
    still: Trio, batch: Batch, tmp_path: Path
) -> None:
    site = a_sweep(still, batch, 20, 4)
    with site.connect() as client:
        job = client.submit(site.spec("sweep", "gate"))
        started(site, 4)
        site.broker.event("job_changed", job=job.id, state="running", seconds=SECONDS)
        out, _ = call(site.environ, "site", "show", job.id, "--dir", site.site, "--json")
        shown = json.loads(out)["run"]
        assert (shown["elements"], shown["elements_ended"]) == (20, 0)
        batch.engine.remember(batch.it, min(batch.queue(), key=int))
        batch.kill_master()
        site.agent.kill()
        opened(site)
        batch.start_master()
        site.start_agent()
        ended = job.result(tmp_path / "out", timeout=SECONDS)
    out, _ = call(site.environ, "site", "show", job.id, "--dir", site.site, "--json")
    assert json.loads(out)["run"]["elements_ended"] == 20
    assert (ended.state, ended.exit_code) == ("succeeded", 0)
    assert site.starts() == each_once("sweep", range(20))
    assert max(map(int, (site.home / "together").read_text().split())) <= 4
    told = {int(file.name): file.read_text() for file in (tmp_path / "out/out").iterdir()}
    assert told == {n: f"{n} of 20" for n in range(20)}
    log = "".join(f"==> element {n} <==\nsaid {n}\n" for n in range(20))
    assert (tmp_path / "out" / STDOUT_NAME).read_text() == log


def test_one_element_that_fails_makes_the_job_fail_with_its_code(
    still: Trio, batch: Batch, tmp_path: Path
) -> None:
    site = a_sweep(still, batch, 10, 5)
    with site.connect() as client:
        job = client.submit(site.spec("fails"))
        job.wait(timeout=SECONDS)
        ended = job.fetch(tmp_path / "out")
    assert (ended.state, ended.exit_code, ended.code) == ("failed", 3, "array.failed")
    assert ended.params == {"elements": "7", "count": 10}
    assert len(list((tmp_path / "out/out").iterdir())) == 10  # the others were not in vain
    assert site.starts() == each_once("fails", range(10))


@only(SLURM)
def test_a_requeued_element_does_not_run_again(still: Trio, batch: Batch) -> None:
    site = a_sweep(still, batch, 4, 2)
    with site.connect() as client:
        job = client.submit(site.spec("one", "gate"))
        first, _ = running(batch, site, 2)
        batch.told("scontrol", "update", f"JobId={first}", "Requeue=1")
        batch.told("scontrol", "requeue", first)
        until(lambda: len(site.starts()) == 3, "another element in its place")
        opened(site)
        ended = job.wait(timeout=SECONDS)
    assert (ended.state, ended.code) == ("failed", "array.failed")  # ended by TERM, with a record
    assert ended.exit_code == 143
    assert ended.params == {"elements": first.partition("_")[2], "count": 4}
    assert site.starts() == each_once("one", range(4))


@only(SLURM)
@pytest.mark.parametrize("waiting", [True, False])
def test_an_element_that_somebody_cancels_is_told_and_the_others_end(
    still: Trio, batch: Batch, *, waiting: bool
) -> None:
    site = a_sweep(still, batch, 5, 2)
    with site.connect() as client:
        job = client.submit(site.spec("one", "gate"))
        now = running(batch, site, 2)
        number = "3" if waiting else now[0].partition("_")[2]
        element = f"{now[0].partition('_')[0]}_{number}"
        batch.told("scancel", element)  # which returns before anything is signalled
        until(lambda: over(batch, element), "end of the element")
        opened(site)
        ended = job.wait(timeout=SECONDS)
    code = "array.unstarted" if waiting else "scheduler.cancelled"  # Slurm forgets who waited
    assert (ended.state, ended.code) == ("failed", code)
    assert ended.params == {"elements": number, "count": 5}
    expected = range(5) if not waiting else (0, 1, 2, 4)
    assert site.starts() == Counter(f"one-{n}" for n in expected)


def test_a_cancel_ends_all_elements_and_lets_no_other_start(still: Trio, batch: Batch) -> None:
    site = a_sweep(still, batch, 6, 2)
    with site.connect() as client:
        job = client.submit(site.spec("one", "gate"))
        started(site, 2)
        job.cancel()
        assert job.wait(timeout=SECONDS).state == "cancelled"
    assert set(batch.queue().values()) == batch.engine.cancelled
    opened(site)
    control = site.site / "work" / job.id / "1/control"
    revoked = [n for n in range(6) if (control / str(n) / "latch").is_symlink()]
    assert len(revoked) == 4
    assert len(site.starts()) == 2


@only(SLURM)
def test_an_element_whose_record_is_gone_is_lost_and_named(still: Trio, batch: Batch) -> None:
    """As after a node that died with the file system that it had written to."""
    site = a_sweep(still, batch, 3, 3)
    with site.connect() as client:
        job = client.submit(site.spec("one", "gate"))
        numbers = running(batch, site, 3)
        control = site.site / "work" / job.id / "1/control"
        kill_the_wrapper(control / "1")
        opened(site)
        ended = job.wait(timeout=SECONDS)
    assert (ended.state, ended.code) == ("lost", "array.lost")
    assert ended.params == {"elements": "1", "count": 3}
    assert len(numbers) == 3
    assert site.starts() == each_once("one", range(3))


def kill_the_wrapper(control: Path) -> None:
    """End the shell that would write the record of the end."""
    found = re.match(r"start \S+ (\d+) ", (control / "latch/start").read_text())
    assert found is not None
    os.kill(int(found[1]), signal.SIGKILL)


def test_an_array_that_the_batch_system_never_takes_is_refused_before_anything_runs(
    still: Trio,
) -> None:
    """More elements than its MaxArraySize: waiting would not help. A smaller one runs at once."""
    with a_batch(SLURM, ("MaxArraySize=5",)) as batch:
        site = a_sweep(still, batch, 6, 2)
        opened(site)
        with site.connect() as client:
            large = client.submit(site.spec("large", "gate")).wait(timeout=SECONDS)
            assert (large.state, large.code) == ("failed", "scheduler.refused")
            assert (site.starts(), batch.queue()) == ({}, {})
            manifest = site.site / "manifest.toml"
            manifest.write_text(manifest.read_text().replace("elements = 6", "elements = 5"))
            assert (
                client.submit(site.spec("small", "gate")).wait(timeout=SECONDS).state == "succeeded"
            )
    assert site.starts() == each_once("small", range(5))
