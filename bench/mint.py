"""What old MInt programs cost a broker: one large file each way, and old agents beside new ones.

`./dev bench mint [--json] [--size-mib 1536] [--old 100] [--new 1000] [--quick]`
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import ssl
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any, Final

from bench.connection import Connection
from bench.idle import Crowd
from bench.process import BenchFault, Server, end_as_interrupted, raise_open_files
from bench.report import Figure, Spread, Table, conclude, note
from bench.world import USER, Member, World, world
from sekisho.adapters.logging_setup import set_up_logging
from sekisho.wire.mint_body import Content, Lifter, Weaver

_MIB: Final = 1 << 20
_BASE: Final = "/mi-distcomp-api/"
_OLD_SITE: Final = "old-site"
_COMMAND: Final = "/opt/solver/bin/solve"
_POLL_SECONDS: Final = 30.0
_SECONDS: Final = 3600


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    size_mib: int
    old: int
    new: int
    seconds: float


# --- one large file ------------------------------------------------------------------------------


@dataclass(slots=True)
class Large:
    """A file that is made while it is sent: blocks that differ, hence nothing is deduplicated."""

    size_mib: int

    def blocks(self) -> Iterator[bytes]:
        for number in range(self.size_mib):
            yield hashlib.shake_128(number.to_bytes(8)).digest(_MIB)

    @property
    def content(self) -> Content:
        return Content(self.size_mib * _MIB, self.blocks)

    def digest(self) -> str:
        whole = hashlib.sha256()
        for block in self.blocks():
            whole.update(block)
        return whole.hexdigest()


class Line:
    """An old program's requests, each on a connection of its own."""

    def __init__(self, here: World) -> None:
        self._here = here
        self._trust = ssl.create_default_context(cafile=here.ca)
        token = (here.user_dir / "token").read_text("ascii").strip()
        self._headers = {"Authorization": f"Bearer {token}"}

    def get(self, call: str, spool: Any = None, **query: str) -> Any:
        """Return the answer as JSON; its long texts are then in ``spool``."""
        words = "&".join(f"{name}={value}" for name, value in query.items())
        with closing(self._connection()) as line:
            line.request("GET", f"{_BASE}{call}?{words}", headers=self._headers)
            return _lifted(line.getresponse(), spool)

    def post(self, call: str, size: int, body: Iterator[bytes]) -> dict[str, Any]:
        headers = {**self._headers, "Content-Length": str(size)}
        with closing(self._connection()) as line:
            line.request("POST", f"{_BASE}{call}", body=body, headers=headers)
            entry: dict[str, Any] = json.loads(line.getresponse().read())["errors"][0]
        if entry["code"] != 200:
            raise BenchFault(f"{call}: {entry}")
        return entry

    def say(self, call: str, **message: Any) -> dict[str, Any]:
        text = json.dumps(message).encode()
        return self.post(call, len(text), iter([text]))

    def _connection(self) -> HTTPSConnection:
        port = self._here.port
        return HTTPSConnection("127.0.0.1", port, context=self._trust, timeout=_SECONDS)


def _lifted(answer: HTTPResponse, spool: Any) -> Any:
    if spool is None:
        return json.loads(answer.read())
    lifter = Lifter(spool)
    while piece := answer.read(_MIB):
        lifter.feed(piece)
    return lifter.end()


def _large(here: World, broker: Server, plan: Plan, table: Table) -> dict[str, Figure]:
    """Take one file from a workflow to an agent and back."""
    line, large, gib = Line(here), Large(plan.size_mib), plan.size_mib / 1024
    expected, figures = large.digest(), dict[str, Figure]()
    before = peak_mib(broker)

    def timed(name: str, key: str, work: Any) -> Any:
        note(name)
        cpu, begun = broker.cpu_seconds(), time.monotonic()
        done = work()
        passed, cost = time.monotonic() - begun, (broker.cpu_seconds() - cpu) / gib
        table.add(name, f"{passed:.1f} s", f"{plan.size_mib / passed:.0f} MiB/s", f"{cost:.1f} s")
        figures[f"{key}_cpu_s_per_gib"] = cost
        return done

    accept_id = timed("add-calcinfo", "add", lambda: _register(line, large))
    line.say("allow-wait-calc", accept_id=accept_id)
    line.get("calc-request", site_id=_OLD_SITE)
    with tempfile.TemporaryFile(dir=here.root) as spool:
        query = {"site_id": _OLD_SITE, "accept_id": accept_id}
        timed("calc-params", "params", lambda: line.get("calc-params", spool, **query))
    named = {"accept_id": accept_id, "site_id": _OLD_SITE}
    line.say("calc-params-complete", **named)
    line.say("calc-start", **named)
    line.say("calc-end", **named, result="calc end")
    timed("send-results", "send", lambda: _send(line, large, named))
    line.say("end-send", **named, result="end send")
    with tempfile.TemporaryFile(dir=here.root) as spool:
        timed(
            "get-calc-result",
            "result",
            lambda: line.get("get-calc-result", spool, accept_id=accept_id),
        )
        if _digest(spool) != expected:
            raise BenchFault("the result is not what was sent")
    growth = peak_mib(broker) - before
    table.add("the broker's peak memory grew by", f"{growth} MiB")
    return figures | {"rss_growth_mib": growth}


def _register(line: Line, large: Large) -> str:
    weaver = Weaver()
    info = {
        "command": _COMMAND,
        "remote-site": _OLD_SITE,
        "parameters": "",
        "parameter_files": {"in.bin": [weaver.hole(large.content), "", ""]},
        "result_files": {"out.bin": {}},
    }
    return str(line.post("add-calcinfo", *weaver.weave({"calc-info": info}))["accept_id"])


def _send(line: Line, large: Large, named: dict[str, str]) -> None:
    weaver = Weaver()
    file = {"content": weaver.hole(large.content), "mimetype1": "", "mimetype2": ""}
    line.post("send-results", *weaver.weave({**named, "result_files": {"out.bin": file}}))


def _digest(spool: Any) -> str:
    spool.seek(0)
    return hashlib.file_digest(spool, "sha256").hexdigest()


def peak_mib(server: Server) -> int:
    """Return the most memory that a process has held so far."""
    status = Path(f"/proc/{server.pid}/status").read_text("ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) >> 10


# --- many agents ---------------------------------------------------------------------------------


async def _old_agents(here: World, plan: Plan) -> list[float]:
    """Let old agents ask, each on a new connection, spread over time; return how long each took."""
    trust = ssl.create_default_context(cafile=here.ca)
    token = (here.user_dir / "token").read_text("ascii").strip()
    until, took = time.monotonic() + plan.seconds, list[float]()

    async def ask(number: int) -> None:
        await asyncio.sleep(_POLL_SECONDS * number / plan.old)
        while time.monotonic() < until:
            begun = time.monotonic()
            line = await Connection.open(here.port, trust)
            path = f"{_BASE}calc-request?site_id={_OLD_SITE}"
            status, _ = await line.ask("GET", path, token=token)
            line.close()
            if status != 200:
                raise BenchFault(f"calc-request: {status}")
            took.append((time.monotonic() - begun) * 1000)
            await asyncio.sleep(_POLL_SECONDS)

    await asyncio.gather(*(ask(number) for number in range(plan.old)))
    return took


def _crowd(
    here: World, broker: Server, members: list[Member], plan: Plan, table: Table
) -> dict[str, Figure]:
    note(f"{plan.new} new agents")
    crowd = Crowd(here, broker, members)
    crowd.grow(plan.new)
    alone = crowd.look(plan.seconds / 2).cores
    note(f"and {plan.old} old ones")
    cpu, begun = broker.cpu_seconds(), time.monotonic()
    took = Spread.of(asyncio.run(_old_agents(here, plan)))
    cores = (broker.cpu_seconds() - cpu) / (time.monotonic() - begun)
    picked = crowd.pick_up(20)
    memory = broker.memory().rss / _MIB
    table.add(f"{plan.new} new agents alone", f"{alone:.3f} cores")
    table.add(f"and {plan.old} old ones", f"{cores:.3f} cores", f"{memory:.0f} MiB")
    table.add("an old agent's question, with its handshake", *took.cells("ms", 1)[:3])
    table.add("pick-up by a new agent beside them", *picked.cells("ms", 1)[:3])
    return {
        "cores_new": alone,
        "cores_both": cores,
        "rss_both_mib": memory,
        "old_poll_p99_ms": took.p99,
        "pick_up_p99_ms": picked.p99,
    }


def measure(plan: Plan) -> tuple[Table, dict[str, Figure]]:
    """Measure everything in a world of its own."""
    table = Table("", "", "", "broker's CPU per GiB, or 99 %")
    with world() as here:
        ini = here.broker_dir / "old.ini"
        ini.write_text(
            f"[RemoteSites]\nremote_site_ids = {_OLD_SITE}\n[{_OLD_SITE}]\ncommands = {_COMMAND}\n"
        )
        words = ("broker", "import-ini", "old.ini", "--user", USER, "--write")
        here.run(here.broker_dir, *words, "-c", "broker.toml")
        members = here.crowd(plan.new)
        broker = here.serve()
        figures = _large(here, broker, plan, table)
        figures |= _crowd(here, broker, members, plan, table)
    return table, figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="./dev bench mint", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a small file and a short look")
    parser.add_argument("--size-mib", type=int)
    parser.add_argument("--old", type=int, default=100)
    parser.add_argument("--new", type=int, default=1000)
    given = parser.parse_args()
    size, seconds = (128, 30.0) if given.quick else (1536, 90.0)
    end_as_interrupted()
    raise_open_files()
    set_up_logging("error")
    table, figures = measure(Plan(given.size_mib or size, given.old, given.new, seconds))
    conclude(table, figures, as_json=given.json)


if __name__ == "__main__":
    main()
