"""Whole jobs through real batch systems that break, are administered, and say no: honest ends."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from sekisho.adapters.schedulers.control import SCRIPT_TEXT
from tests.engines import ENGINES, SECONDS, Batch, Engine, a_batch
from tests.faults.program import call
from tests.faults.trio import Trio
from tests.waiting import until

pytestmark = pytest.mark.time_limit(600)


def test_a_job_is_accepted_while_it_waits_or_is_held_and_running_when_it_runs(
    site: Trio, batch: Batch, tmp_path: Path
) -> None:
    batch.close()
    with site.connect() as client:
        job = client.submit(site.spec("one", "gate", source=site.some_input()))
        until(lambda: batch.engine.waiting in batch.queue().values(), "a waiting job")
        assert site.states()[job.id] == "accepted"
        batch.hold()
        until(lambda: batch.engine.held in batch.queue().values(), "a held job")
        site.agent.event("run_held", job=job.id, seconds=SECONDS)
        assert site.held() == {job.id: True}
        batch.open()
        time.sleep(5)  # longer than a missing job would be waited for
        assert site.states()[job.id] == "accepted"
        batch.release()
        batch.running(site)
        site.broker.event("job_changed", job=job.id, state="running", seconds=SECONDS)
        assert site.held() == {job.id: False}
        site.open_gate()
        assert job.result(tmp_path / "out", timeout=SECONDS).state == "succeeded"
    assert (tmp_path / "out/out/in/given").read_bytes() == site.some_input().read_bytes()
    assert site.starts() == {"one": 1}


@pytest.mark.parametrize("waiting", [True, False])
def test_a_cancel_reaches_the_job_in_the_queue(site: Trio, batch: Batch, *, waiting: bool) -> None:
    if waiting:
        batch.close()
    with site.connect() as client:
        job = client.submit(site.spec("one", "gate"))
        until(lambda: batch.queue() if waiting else site.starts()["one"], "a job")
        job.cancel()
        assert job.wait(timeout=SECONDS).state == "cancelled"
    assert set(batch.queue().values()) == batch.engine.cancelled
    assert site.starts()["one"] == (0 if waiting else 1)


def test_a_master_that_is_away_costs_time_and_nothing_else(
    site: Trio, batch: Batch, tmp_path: Path
) -> None:
    with site.connect() as client:
        first = client.submit(site.spec("one", "gate"))
        batch.engine.remember(batch.it, batch.running(site))
        batch.kill_master()
        site.open_gate()
        second = client.submit(site.spec("two"))
        site.agent.event("run_waits", job=second.id, seconds=SECONDS)
        batch.start_master()
        assert first.result(tmp_path / "one", timeout=SECONDS).state == "succeeded"
        assert second.result(tmp_path / "two", timeout=SECONDS).state == "succeeded"
    assert site.starts() == {"one": 1, "two": 1}


def test_a_master_that_forgets_what_it_took_starts_nothing_twice(site: Trio, batch: Batch) -> None:
    with site.connect() as client:
        job = client.submit(site.spec("one", "2"))
        batch.queued()
        batch.kill_master()  # before it has written anything down
        batch.start_master()
        assert job.wait(timeout=SECONDS).state in ("succeeded", "lost")
    assert site.starts()["one"] == 1


def test_a_job_outlives_the_daemon_of_its_node(site: Trio, batch: Batch, tmp_path: Path) -> None:
    with site.connect() as client:
        job = client.submit(site.spec("one", "gate"))
        batch.running(site)
        batch.kill_node()
        site.open_gate()
        until((site.site / "work" / job.id / "1/control/exit").exists, "an exit record")
        batch.start_node()
        assert job.result(tmp_path / "one", timeout=SECONDS).state == "succeeded"
    assert site.starts() == {"one": 1}


def test_a_job_that_is_started_again_by_force_does_not_run_again(site: Trio, batch: Batch) -> None:
    engine = batch.engine
    with site.connect() as client:
        job = client.submit(site.spec("one", "gate"))
        number = batch.running(site)
        assert engine.not_restartable in batch.told(*engine.restart, number)
        batch.told(*(word.format(number) for word in engine.allow_restart))
        batch.told(*engine.restart, number)
        ended = job.wait(timeout=SECONDS)
    assert f"{ended.state} {ended.exit_code}" in engine.restarted
    assert site.starts() == {"one": 1}


def test_a_killed_agent_finds_its_jobs_in_the_queue(
    site: Trio, batch: Batch, tmp_path: Path
) -> None:
    with site.connect() as client:
        job = client.submit(site.spec("one", "gate"))
        batch.running(site)
        site.agent.kill()
        site.open_gate()
        site.start_agent()
        assert job.result(tmp_path / "one", timeout=SECONDS).state == "succeeded"
    assert site.starts() == {"one": 1}
    assert len(batch.queue()) <= 1


def test_an_agent_that_only_looks_in_now_and_then_gives_the_same_results(
    still: Trio, batch: Batch, tmp_path: Path
) -> None:
    batch.through(still)
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


def test_the_check_submits_a_harmless_job_and_shows_what_it_sees(still: Trio, batch: Batch) -> None:
    batch.through(still)
    still.start_broker()
    check = ("site", "check", "--dir", still.site)
    told, _ = call(still.environ | {"LC_ALL": "en_US.UTF-8"}, *check, status=None)
    assert f"batch system: trial: {batch.engine.submits}" in told
    assert re.search(r"batch system: trial: 1: (waiting, )?(running, )?ended\n", told), told
    script, _ = call(still.environ, "site", "check", "--script")
    assert script.rstrip("\n") == SCRIPT_TEXT.rstrip("\n")
    batch.through(still, command='resources = { queue = "nope" }')
    told, _ = call(still.environ | {"LC_ALL": "ja_JP.UTF-8"}, *check, status=1)
    assert "バッチシステム [scheduler.refused]" in told
    assert batch.engine.no_queue in told
    assert list((still.site / "work").glob("job_*")) == []


@pytest.mark.time_limit(1800)
@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_many_jobs_pass_a_queue_that_holds_few(still: Trio, engine: Engine) -> None:
    """The limit is waited for: no job fails of it, and each starts once."""
    with a_batch(engine, **engine.crowded) as batch:
        batch.through(still, running=engine.crowd)
        still.start_broker()
        still.start_agent()
        most = 0
        with still.connect() as client:
            jobs = [client.submit(still.spec(f"job-{n}")) for n in range(engine.crowd)]
            end = time.monotonic() + 4 * SECONDS
            while set(still.states().values()) != {"succeeded"}:
                assert time.monotonic() < end, still.states()
                most = max(most, len(batch.queue()))
                time.sleep(0.3)
            assert {job.wait(timeout=SECONDS).state for job in jobs} == {"succeeded"}
    assert engine.room // 2 <= most <= engine.room
    assert still.starts() == {f"job-{n}": 1 for n in range(engine.crowd)}
