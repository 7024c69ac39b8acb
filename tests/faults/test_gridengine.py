"""Whole jobs through a real Grid Engine that breaks, is administered, and says no."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.batch import through
from tests.faults.program import call
from tests.faults.trio import Trio
from tests.gridengine import PROGRAMS, GridEngine, a_gridengine

pytestmark = pytest.mark.time_limit(600)
SECONDS = 240.0
COMMANDS = "\n".join(
    f'{key} = ["{PROGRAMS}/{name}"]'
    for key, name in (("submit", "qsub"), ("status", "qstat"), ("cancel", "qdel"))
)


@pytest.fixture
def engine() -> Iterator[GridEngine]:
    with tempfile.TemporaryDirectory(prefix="sge-") as base, a_gridengine(Path(base) / "s") as it:
        yield it


@pytest.fixture
def site(still: Trio, engine: GridEngine) -> Trio:
    """A broker and an agent whose command runs through Grid Engine."""
    through_engine(still, engine)
    still.start_broker()
    still.start_agent()
    return still


def through_engine(trio: Trio, engine: GridEngine, command: str = "", running: int = 16) -> None:
    through(
        trio,
        engine.environment,
        dialect="sge",
        commands=COMMANDS,
        command=command,
        running=running,
    )


def queue(engine: GridEngine) -> dict[str, str]:
    """Return state by number of all jobs that Grid Engine knows."""
    told = engine.told("qstat", "-xml", "-u", "*")
    found = re.findall(r"<JB_job_number>(\d+)<.*?<state>(\w+)<", told, re.DOTALL)
    return dict(found)


def until(claim: Callable[[], object], what: str) -> None:
    end = time.monotonic() + SECONDS
    while not claim():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def running(engine: GridEngine, trio: Trio, key: str = "one") -> str:
    """Return the number of the job that runs, when its command has started."""
    until(lambda: trio.starts()[key], "a start")
    until(lambda: "r" in queue(engine).values(), "a job that runs")  # told a moment later
    return next(number for number, state in queue(engine).items() if state == "r")


def test_a_job_is_accepted_while_it_waits_or_is_held_and_running_when_it_runs(
    site: Trio, engine: GridEngine, tmp_path: Path
) -> None:
    engine.told("qmod", "-d", "main.q")
    with site.connect() as client:
        job = client.submit(site.spec("one", "gate", source=site.some_input()))
        until(lambda: "qw" in queue(engine).values(), "a waiting job")
        engine.told("qhold", *queue(engine))
        until(lambda: "hqw" in queue(engine).values(), "a held job")
        engine.told("qmod", "-e", "main.q")
        time.sleep(5)  # longer than a missing job would be waited for
        assert site.states()[job.id] == "accepted"
        engine.told("qrls", *queue(engine))
        running(engine, site)
        site.broker.event("job_changed", job=job.id, state="running", seconds=SECONDS)
        site.open_gate()
        assert job.result(tmp_path / "out", timeout=SECONDS).state == "succeeded"
    assert (tmp_path / "out/out/in/given").read_bytes() == site.some_input().read_bytes()
    assert site.starts() == {"one": 1}


@pytest.mark.parametrize("waiting", [True, False])
def test_a_cancel_reaches_the_job_in_grid_engine(
    site: Trio, engine: GridEngine, *, waiting: bool
) -> None:
    if waiting:
        engine.told("qmod", "-d", "main.q")
    with site.connect() as client:
        job = client.submit(site.spec("one", "gate"))
        until(lambda: queue(engine) if waiting else site.starts()["one"], "a job")
        job.cancel()
        assert job.wait(timeout=SECONDS).state == "cancelled"
    assert queue(engine) == {}
    assert site.starts()["one"] == (0 if waiting else 1)


def test_what_somebody_takes_out_of_the_queue_is_tried_again_and_then_given_up(
    site: Trio, engine: GridEngine
) -> None:
    """Grid Engine does not say who ended a job. Nothing had started, so nothing is in doubt."""
    engine.told("qmod", "-d", "main.q")
    with site.connect() as client:
        job = client.submit(site.spec("one"))
        gone: set[str] = set()
        while len(gone) < 3:
            gone |= set(until_queued(engine))
            engine.told("qdel", *gone)
            until(lambda: not queue(engine), "an empty queue")
        ended = job.wait(timeout=SECONDS)
    assert (ended.state, ended.code) == ("failed", "launch.failed")
    assert site.starts() == {}


def test_what_somebody_ends_while_it_runs_has_an_unknown_fate(
    site: Trio, engine: GridEngine
) -> None:
    with site.connect() as client:
        job = client.submit(site.spec("one", "gate"))
        engine.told("qdel", running(engine, site))
        assert job.wait(timeout=SECONDS).state == "lost"
    assert site.starts() == {"one": 1}


def test_our_limit_of_time_comes_before_that_of_grid_engine_and_is_told(
    still: Trio, engine: GridEngine
) -> None:
    through_engine(still, engine)
    manifest = still.site / "manifest.toml"
    text = manifest.read_text()
    manifest.write_text(text.replace("time_limit_s = 300", "time_limit_s = 2"))
    still.start_broker()
    still.start_agent()
    with still.connect() as client:
        job = client.submit(still.spec("one", "gate"))
        asked = engine.told("qstat", "-j", max(until_queued(engine)))
        assert re.search(r"hard resource_list:\s+h_rt=([1-9]\d+)\b", asked)
        ended = job.wait(timeout=SECONDS)
    assert (ended.state, ended.code) == ("failed", "limit.time")
    assert still.starts() == {"one": 1}


def until_queued(engine: GridEngine) -> dict[str, str]:
    until(partial(queue, engine), "a job")
    return queue(engine)


def test_grid_engines_own_limit_of_time_leaves_no_record_and_nothing_is_guessed(
    still: Trio, engine: GridEngine
) -> None:
    through_engine(still, engine, "resources = { wall_time_s = 3 }")
    still.start_broker()
    still.start_agent()
    with still.connect() as client:
        job = client.submit(still.spec("one", "gate"))
        assert job.wait(timeout=SECONDS).state == "lost"
    assert queue(engine) == {}
    assert still.starts() == {"one": 1}


def test_a_master_that_is_away_costs_time_and_nothing_else(
    site: Trio, engine: GridEngine, tmp_path: Path
) -> None:
    with site.connect() as client:
        first = client.submit(site.spec("one", "gate"))
        running(engine, site)
        engine.kill("sge_qmaster")
        site.open_gate()
        second = client.submit(site.spec("two"))
        site.agent.event("run_waits", job=second.id, seconds=SECONDS)
        engine.start_master()
        assert first.result(tmp_path / "one", timeout=SECONDS).state == "succeeded"
        assert second.result(tmp_path / "two", timeout=SECONDS).state == "succeeded"
    assert site.starts() == {"one": 1, "two": 1}


def test_a_job_outlives_the_daemon_of_its_node(
    site: Trio, engine: GridEngine, tmp_path: Path
) -> None:
    with site.connect() as client:
        job = client.submit(site.spec("one", "gate"))
        running(engine, site)
        engine.kill("sge_execd")
        site.open_gate()
        until((site.site / "work" / job.id / "1/control/exit").exists, "an exit record")
        engine.start_node()
        assert job.result(tmp_path / "one", timeout=SECONDS).state == "succeeded"
    assert site.starts() == {"one": 1}


def test_a_job_that_is_started_again_by_force_does_not_run_again(
    site: Trio, engine: GridEngine
) -> None:
    with site.connect() as client:
        job = client.submit(site.spec("one", "gate"))
        number = running(engine, site)
        assert "not restartable" in engine.told("qmod", "-rj", number)  # we said -r n
        engine.told("qalter", "-r", "y", number)
        engine.told("qmod", "-rj", number)
        assert job.wait(timeout=SECONDS).state in ("failed", "lost")
    assert site.starts() == {"one": 1}


def test_an_agent_that_only_looks_in_now_and_then_gives_the_same_results(
    still: Trio, engine: GridEngine, tmp_path: Path
) -> None:
    through_engine(still, engine)
    still.start_broker()
    with still.connect() as client:
        jobs = [client.submit(still.spec(f"job-{n}", source=still.some_input())) for n in range(3)]
        for _ in range(60):
            call(still.environ, "agent", "--once", "--dir", still.site, status=None)
            if all(state == "succeeded" for state in still.states().values()):
                break
        for n, job in enumerate(jobs):
            assert job.result(tmp_path / job.id, timeout=SECONDS).state == "succeeded"
            assert (tmp_path / job.id / "out/key").read_text() == f"job-{n}"
    assert still.starts() == {f"job-{n}": 1 for n in range(3)}


def test_the_check_submits_a_harmless_job_and_shows_what_it_sees(
    still: Trio, engine: GridEngine
) -> None:
    through_engine(still, engine)
    still.start_broker()
    check = ("site", "check", "--dir", still.site)
    told, _ = call(still.environ | {"LC_ALL": "en_US.UTF-8"}, *check, status=None)
    assert f"batch system: trial: {PROGRAMS}/qsub -l h_rt=00:01:00 -terse -r n" in told
    assert re.search(r"batch system: trial: 1: (waiting, )?(running, )?ended\n", told), json.dumps(
        told
    )


@pytest.mark.time_limit(900)
def test_thirty_jobs_pass_a_grid_engine_that_holds_five(still: Trio) -> None:
    """The limit is waited for: no job fails of it, and each starts once."""
    count = 30
    with (
        tempfile.TemporaryDirectory(prefix="sge-") as base,
        a_gridengine(Path(base) / "s", most_jobs=5) as engine,
    ):
        through_engine(still, engine, running=count)
        still.start_broker()
        still.start_agent()
        most = 0
        with still.connect() as client:
            jobs = [client.submit(still.spec(f"job-{n}")) for n in range(count)]
            end = time.monotonic() + 2 * SECONDS
            while set(still.states().values()) != {"succeeded"}:
                assert time.monotonic() < end, still.states()
                most = max(most, len(queue(engine)))
                time.sleep(0.3)
            assert {job.wait(timeout=SECONDS).state for job in jobs} == {"succeeded"}
    assert 2 <= most <= 5
    assert still.starts() == {f"job-{n}": 1 for n in range(count)}
