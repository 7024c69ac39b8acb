"""How long a job takes that does nothing, what of it is sekisho, and what waiting costs.

`./dev bench latency [--json] [--jobs 200] [--agents 5000] [--quick]`
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench import parts
from bench.idle import Crowd, Idle
from bench.parts import timed
from bench.process import Server, end_as_interrupted, raise_open_files
from bench.report import Figure, Spread, Table, conclude, note
from bench.world import COPY, NOTHING, SITE, World, world
from sekisho.adapters.logging_setup import set_up_logging
from sekisho.api import Client, JobSpec, connect

_MIB: Final = 1 << 20
#: Jobs in flight, and how many are run for the rate.
_FLIGHTS: Final = ((1, 1), (8, 3), (64, 4))
_SMALL_CROWD: Final = 1000
_IDLE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    jobs: int
    agents: int
    cli: int
    idle_s: float
    pick_ups: int


@dataclass(slots=True)
class Findings:
    """The table, and the figures for programs, as they grow."""

    table: Table = field(default_factory=lambda: Table("", "median", "95 %", "99 %", "of"))
    figures: dict[str, Figure] = field(default_factory=dict)

    def spread(self, name: str, spread: Spread, **figures: float) -> None:
        self.table.add(name, *spread.cells("ms"))
        self.figures |= figures


def measure(plan: Plan) -> Findings:
    """Measure everything in a world of its own."""
    found = Findings()
    with world() as here:
        members = here.crowd(plan.agents)
        broker = here.serve()
        agent = here.start_agent()
        with connect(here.config) as client:
            _jobs(found, here, client, plan)
            _command_line(found, here, plan)
            _parts(found, here, plan)
            _rates(found, here, client, plan)
            _behind_proxy(found, here, client, plan, agent)
        crowd = Crowd(here, broker, members)
        for size in sorted({min(_SMALL_CROWD, plan.agents), plan.agents}):
            _idle(found, crowd, size, plan)
    return found


def _jobs(found: Findings, here: World, client: Client, plan: Plan) -> None:
    note("jobs through the API, one after another")
    nothing = timed(lambda: run(client, here.root / "out"), plan.jobs)
    figures = {"api_p50_ms": nothing.p50, "api_p99_ms": nothing.p99}
    found.spread("job that does nothing, Python API", nothing, **figures)
    source = here.user_dir / "in.txt"
    source.write_text("sent and sent back\n", "utf-8")
    spec = JobSpec(site=SITE, command=COPY, inputs=[source], outputs=["out.txt"])
    copied = timed(lambda: client.submit(spec).result(here.root / "out"), plan.jobs // 2)
    found.spread("job with one file each way, Python API", copied)


def run(client: Client, into: Path) -> None:
    """Run one job that does nothing, from its submission to its acknowledged result."""
    client.submit(JobSpec(site=SITE, command=NOTHING)).result(into)


def _command_line(found: Findings, here: World, plan: Plan) -> None:
    note("jobs through the command line")
    argv = ("sekisho", "run", SITE, NOTHING)
    env = here.environ(here.user_dir)

    def one() -> None:
        subprocess.run(argv, cwd=here.user_dir, env=env, capture_output=True, check=True)

    spread = timed(one, plan.cli, warm_up=2)
    found.spread("the same, `sekisho run`", spread, cli_p50_ms=spread.p50)


def _parts(found: Findings, here: World, plan: Plan) -> None:
    note("the parts of a job, each alone")
    trip = parts.round_trip(here, plan.jobs)
    found.spread("bare HTTPS round trip", trip, asgi_rtt_ms=trip.p50)
    spawn = parts.spawn(plan.jobs)
    found.spread("bare process", spawn, spawn_ms=spawn.p50)
    found.spread("bare SQLite commit, synchronous FULL", parts.commit(here.root, plan.jobs))
    found.spread("bare file: write, sync, rename, sync", parts.file(here.root, plan.jobs))


def _behind_proxy(found: Findings, here: World, client: Client, plan: Plan, agent: Server) -> None:
    """Measure with another ``agent``, which reaches the broker by CONNECT only."""
    if shutil.which("tinyproxy") is None:
        note("no tinyproxy: nothing is measured through a proxy")
        return
    note("jobs of an agent behind a proxy")
    agent.stop()
    _, url = here.start_proxy()
    here.restart_agent(broker__proxy=url)
    through = timed(lambda: run(client, here.root / "out"), plan.jobs)
    name = "job that does nothing, agent behind a CONNECT proxy"
    found.spread(name, through, api_proxy_p50_ms=through.p50)


def _rates(found: Findings, here: World, client: Client, plan: Plan) -> None:
    for flight, times in _FLIGHTS:
        note(f"jobs, {flight} in flight")
        number = plan.jobs * times
        rate = number / _seconds(lambda: run(client, here.root / "out"), flight, number)
        found.figures[f"jobs_per_s_{flight}"] = rate
        found.table.add(f"jobs, {flight} in flight", f"{rate:.1f} /s", "", "", str(number))


def _seconds(act: Callable[[], None], flight: int, number: int) -> float:
    """Return how long ``number`` calls take with ``flight`` of them at any time."""
    with ThreadPoolExecutor(flight) as threads:
        for warm in [threads.submit(act) for _ in range(flight)]:
            warm.result()
        begun = time.perf_counter()
        for done in [threads.submit(act) for _ in range(number)]:
            done.result()
        return time.perf_counter() - begun


def _idle(found: Findings, crowd: Crowd, size: int, plan: Plan) -> None:
    note(f"{size} idle agents")
    crowd.grow(size)
    seen = crowd.look(plan.idle_s)
    spread = crowd.pick_up(plan.pick_ups)
    name = f"{size} idle agents: the broker's"
    found.table.add(f"{name} memory (RSS; PSS)", *_memory_cells(seen))
    found.table.add(f"{name} cores", f"{seen.cores:.3f}", "", "", f"{seen.seconds:.0f} s")
    found.table.add(f"{size} idle agents: submission to offer", *spread.cells("ms"))
    found.figures |= {
        "agents": seen.agents,
        "idle_rss_mb": seen.memory.rss / _MIB,
        "idle_cores": seen.cores,
        "pickup_p99_ms": spread.p99,
    }


def _memory_cells(seen: Idle) -> tuple[str, ...]:
    return f"{seen.memory.rss / _MIB:.0f} MiB; {seen.memory.pss / _MIB:.0f} MiB", "", "", "1"


def _plan() -> tuple[Plan, bool]:
    line = argparse.ArgumentParser(prog="./dev bench latency", allow_abbrev=False)
    line.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    line.add_argument("--jobs", type=int, default=200, metavar="N", help="samples of most rows")
    line.add_argument("--agents", type=int, default=5000, metavar="N", help="agents that wait")
    line.add_argument("--quick", action="store_true", help="a glance: small numbers")
    given = line.parse_args()
    if min(given.jobs, given.agents) < 1:
        line.error("numbers begin at 1")
    if given.quick:
        return Plan(min(given.jobs, 30), min(given.agents, 200), 5, 5.0, 20), given.json
    return Plan(given.jobs, given.agents, 30, _IDLE_SECONDS, 200), given.json


def main() -> int:
    """Run the benchmark."""
    plan, as_json = _plan()
    if plan.agents * 2 > raise_open_files():
        note("the machine permits too few open files for so many agents: see `ulimit -Hn`")
        return 69
    set_up_logging("warning")
    end_as_interrupted()
    found = measure(plan)
    conclude(found.table, found.figures, as_json=as_json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
