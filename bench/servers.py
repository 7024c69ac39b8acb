"""Which HTTP server: uvicorn beside granian, with the broker's kind of work and nothing behind it.

`./dev bench servers [--json] [--held 2000] [--rounds 3] [--quick]`

One process, one loop, TLS. Each round starts both afresh, one after the other, so that what else
the machine does meanwhile meets both; told is the median of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop

from bench.bare import SERVERS
from bench.connection import Connection
from bench.parts import MILLI, QUESTION
from bench.process import Server, end_as_interrupted, free_port, raise_open_files
from bench.report import Figure, Spread, Table, conclude, note
from bench.world import World
from sekisho.domain.limits import MAX_PART_BYTES

_READY_SECONDS: Final = 30.0
_HANDSHAKES: Final = 32
_BESIDE: Final = 32  #: connections that ask at once
_MIB: Final = 1 << 20
#: What is told of a server, with its unit.
_ROWS: Final[Mapping[str, str]] = {
    "small question, median": "ms",
    "small question, 99 %": "ms",
    f"small questions, {_BESIDE} at once": "/s",
    "bodies of 1 MiB, 4 at once": "MiB/s",
    "held polls: memory": "MiB",
    "held polls: processor time to open them": "s",
    "held polls: small question, median": "ms",
    "held polls: small question, 99 %": "ms",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    questions: int
    bodies: int
    held: int
    rounds: int


@dataclass(frozen=True, slots=True)
class Line:
    """How to reach the server that is being measured."""

    port: int
    trust: ssl.SSLContext

    async def open(self) -> Connection:
        return await Connection.open(self.port, self.trust)


@dataclass(frozen=True, slots=True)
class Asking:
    """A request that is made again and again."""

    method: str
    path: str
    body: bytes

    async def by(self, asker: Connection) -> None:
        status, _ = await asker.ask(self.method, self.path, self.body)
        if status != 200:
            raise OSError(status)


_SMALL: Final = Asking("POST", "/ask", QUESTION)
_LARGE: Final = Asking("PUT", "/put", bytes(MAX_PART_BYTES))


def measure(here: World, name: str, plan: Plan) -> list[float]:
    """Return a figure for each of the rows, of one server that is started for it."""
    port = free_port()
    files = (str(here.broker_dir / "server.pem"), str(here.broker_dir / "server.key"))
    server = here.start_module("bench.bare", name, str(port), *files)
    line = Line(port, ssl.create_default_context(cafile=here.ca))
    try:
        server.wait_until(lambda: uvloop.run(_answers(line)), _READY_SECONDS)
        return uvloop.run(_measure(line, server, plan))
    finally:
        here.stop()


async def _answers(line: Line) -> bool:
    try:
        asker = await line.open()
    except OSError:
        return False
    asker.close()
    return True


async def _measure(line: Line, server: Server, plan: Plan) -> list[float]:
    alone = await _questions(line, plan.questions)
    rate = await _rate(line, _SMALL, _BESIDE, plan.questions * 4)
    bodies = await _rate(line, _LARGE, 4, plan.bodies)
    before = server.cpu_seconds()
    async with contextlib.AsyncExitStack() as stack:
        await _hold(stack, line, plan.held)
        opened = server.cpu_seconds() - before
        memory = server.memory().pss / _MIB
        beside = await _questions(line, plan.questions)
    return [
        *(alone.p50, alone.p99, rate, bodies * MAX_PART_BYTES / _MIB),
        *(memory, opened, beside.p50, beside.p99),
    ]


async def _questions(line: Line, number: int) -> Spread:
    asker = await line.open()
    samples = []
    for _ in range(number):
        begun = time.perf_counter()
        await _SMALL.by(asker)
        samples.append((time.perf_counter() - begun) * MILLI)
    asker.close()
    return Spread.of(samples)


async def _rate(line: Line, asking: Asking, beside: int, number: int) -> float:
    """Return how many answers a second ``beside`` connections get together."""
    askers = [await line.open() for _ in range(beside)]

    async def some(asker: Connection) -> None:
        for _ in range(number // beside):
            await asking.by(asker)

    begun = time.perf_counter()
    await asyncio.gather(*(some(asker) for asker in askers))
    passed = time.perf_counter() - begun
    for asker in askers:
        asker.close()
    return number // beside * beside / passed


async def _hold(stack: contextlib.AsyncExitStack, line: Line, number: int) -> None:
    """Open ``number`` polls and leave them open until ``stack`` ends."""
    door = asyncio.Semaphore(_HANDSHAKES)

    async def one() -> asyncio.Task[tuple[int, bytes]]:
        async with door:
            holder = await line.open()
        stack.callback(holder.close)
        return asyncio.create_task(holder.ask("POST", "/poll", QUESTION))

    polls = await asyncio.gather(*(one() for _ in range(number)))
    for poll in polls:
        stack.callback(poll.cancel)
    await _questions(line, 10)  # answered after what came before


def _compare(plan: Plan) -> dict[str, list[float]]:
    """Return the medians of all rounds, by server."""
    rounds: dict[str, list[list[float]]] = {name: [] for name in SERVERS}
    with tempfile.TemporaryDirectory(prefix="sekisho-bench-") as directory:
        here = World(Path(directory))
        here.certify()
        for n in range(plan.rounds):
            for name in SERVERS if n % 2 == 0 else reversed(SERVERS):
                note(f"round {n + 1}: {name}")
                rounds[name].append(measure(here, name, plan))
    return {name: _medians(found) for name, found in rounds.items()}


def _medians(rounds: Sequence[Sequence[float]]) -> list[float]:
    return [statistics.median(figures) for figures in zip(*rounds, strict=True)]


def _plan() -> tuple[Plan, bool]:
    line = argparse.ArgumentParser(prog="./dev bench servers", allow_abbrev=False)
    line.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    line.add_argument("--held", type=int, default=2000, metavar="N", help="polls held open")
    line.add_argument("--rounds", type=int, default=3, metavar="N")
    line.add_argument("--quick", action="store_true", help="a glance: small numbers")
    given = line.parse_args()
    if min(given.held, given.rounds) < 1:
        line.error("numbers begin at 1")
    if given.quick:
        return Plan(200, 40, min(given.held, 200), 1), given.json
    return Plan(1000, 400, given.held, given.rounds), given.json


def main() -> int:
    """Run the benchmark."""
    plan, as_json = _plan()
    raise_open_files()
    end_as_interrupted()
    found = _compare(plan)
    table = Table(f"{plan.held} held polls where polls are held", *SERVERS)
    for (row, unit), *figures in zip(_ROWS.items(), *found.values(), strict=True):
        table.add(row, *(f"{figure:.2f} {unit}" for figure in figures))
    names = ("p50_ms", "p99_ms", "per_s", "mib_per_s", "held_mb", "open_s", "held_p50_ms")
    keys = (*names, "held_p99_ms")
    told: dict[str, Figure] = {
        f"{name}_{key}": figure
        for name, figures in found.items()
        for key, figure in zip(keys, figures, strict=True)
    }
    conclude(table, told, as_json=as_json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
