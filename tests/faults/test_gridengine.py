"""What only a Grid Engine does not say: who ended a job, and why."""

from __future__ import annotations

import re

import pytest

from tests.engines import GRID_ENGINE, SECONDS, Batch, only
from tests.faults.trio import Trio
from tests.waiting import until

pytestmark = [
    pytest.mark.time_limit(600),
    only(GRID_ENGINE),
]


def test_what_somebody_takes_out_of_the_queue_is_tried_again_and_then_given_up(
    site: Trio, batch: Batch
) -> None:
    """Grid Engine does not say who ended a job. Nothing had started, so nothing is in doubt."""
    batch.close()
    with site.connect() as client:
        job = client.submit(site.spec("one"))
        gone: set[str] = set()
        while len(gone) < 3:
            gone |= set(batch.queued())
            batch.told("qdel", *gone)
            until(lambda: not batch.queue(), "an empty queue")
        ended = job.wait(timeout=SECONDS)
    assert (ended.state, ended.code) == ("failed", "launch.failed")
    assert site.starts() == {}


def test_a_job_in_error_is_shown_to_the_site_and_runs_when_it_is_cleared(
    site: Trio, batch: Batch
) -> None:
    """Its directory was away when it should have started. Kills: a job that waits unseen."""
    batch.close()
    with site.connect() as client:
        job = client.submit(site.spec("one"))
        batch.queued()
        control = site.site / "work" / job.id / "1" / "control"
        control.rename(control.with_name("away"))
        batch.open()
        until(lambda: "Eqw" in batch.queue().values(), "a job in error")
        site.agent.event("run_held", job=job.id, seconds=SECONDS)
        assert site.held() == {job.id: True}
        assert site.states()[job.id] == "accepted"
        control.with_name("away").rename(control)
        batch.told("qmod", "-cj", *batch.queue())
        assert job.wait(timeout=SECONDS).state == "succeeded"
    assert site.starts() == {"one": 1}


def test_what_somebody_ends_while_it_runs_has_an_unknown_fate(site: Trio, batch: Batch) -> None:
    with site.connect() as client:
        job = client.submit(site.spec("one", "gate"))
        batch.told("qdel", batch.running(site))
        assert job.wait(timeout=SECONDS).state == "lost"
    assert site.starts() == {"one": 1}


def test_our_limit_of_time_comes_before_that_of_grid_engine_and_is_told(
    still: Trio, batch: Batch
) -> None:
    batch.through(still)
    manifest = still.site / "manifest.toml"
    text = manifest.read_text()
    manifest.write_text(text.replace("time_limit_s = 300", "time_limit_s = 2"))
    still.start_broker()
    still.start_agent()
    with still.connect() as client:
        job = client.submit(still.spec("one", "gate"))
        asked = batch.told("qstat", "-j", max(batch.queued()))
        assert re.search(r"hard resource_list:\s+h_rt=([1-9]\d+)\b", asked)
        ended = job.wait(timeout=SECONDS)
    assert (ended.state, ended.code) == ("failed", "limit.time")
    assert still.starts() == {"one": 1}


def test_grid_engines_own_limit_of_time_leaves_no_record_and_nothing_is_guessed(
    still: Trio, batch: Batch
) -> None:
    batch.through(still, "resources = { wall_time_s = 3 }")
    still.start_broker()
    still.start_agent()
    with still.connect() as client:
        job = client.submit(still.spec("one", "gate"))
        assert job.wait(timeout=SECONDS).state == "lost"
    assert batch.queue() == {}
    assert still.starts() == {"one": 1}
