"""What a job is made of, each part alone: a round trip, a process, a commit, a file."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec

from bench.process import free_port
from bench.report import Spread
from bench.world import World
from sekisho.adapters.durable import write_file
from sekisho.adapters.http_client import Address, sender
from sekisho.adapters.http_line import HttpLine
from sekisho.adapters.http_sender import Call
from sekisho.adapters.patience import Patience
from sekisho.domain.errors import Unreachable
from sekisho.domain.token import Secret
from sekisho.wire.v1 import Poll

MILLI: Final = 1000.0
#: What a small request of the protocol carries.
QUESTION: Final = msgspec.json.encode(Poll(instance="ins_" + "0" * 26, free=1))
_WARM_UP: Final = 20
_READY_SECONDS: Final = 30.0
_BYTES: Final = bytes(1024)


def timed(act: Callable[[], object], number: int, warm_up: int = _WARM_UP) -> Spread:
    """Return how long ``act`` takes, in milliseconds, over ``number`` calls after a few more."""
    samples = []
    for n in range(warm_up + number):
        begun = time.perf_counter()
        act()
        if n >= warm_up:
            samples.append((time.perf_counter() - begun) * MILLI)
    return Spread.of(samples)


def round_trip(here: World, number: int) -> Spread:
    """Measure one small question through the product's client, TLS and the bare server."""
    port = free_port()
    files = (str(here.broker_dir / "server.pem"), str(here.broker_dir / "server.key"))
    server = here.start_module("bench.bare", "uvicorn", str(port), *files)
    where = Address(url=f"https://127.0.0.1:{port}", token=Secret("-"), ca_file=here.ca)
    line = HttpLine(sender(where), Patience(limit_s=0))
    question = Call(method="POST", path="ask", body=QUESTION)
    with closing(line):
        server.wait_until(lambda: _answered(line, question), _READY_SECONDS)
        return timed(lambda: line.send_once(question), number)


def _answered(line: HttpLine, question: Call) -> bool:
    try:
        line.send_once(question)
    except Unreachable:
        return False
    return True


def spawn(number: int) -> Spread:
    """Measure a process that does nothing, from its start to its end."""
    return timed(lambda: subprocess.run(("/bin/true",), check=True), number)


def commit(folder: Path, number: int) -> Spread:
    """Measure one row committed to SQLite as the broker does it: WAL, synchronous FULL."""
    with closing(sqlite3.connect(folder / "commit.sqlite3", isolation_level=None)) as line:
        line.execute("PRAGMA journal_mode = wal")
        line.execute("PRAGMA synchronous = FULL")
        line.execute("CREATE TABLE kept (value BLOB)")

        def one() -> None:
            line.execute("BEGIN IMMEDIATE")
            line.execute("INSERT INTO kept VALUES (?)", (_BYTES,))
            line.execute("COMMIT")

        return timed(one, number)


def file(folder: Path, number: int) -> Spread:
    """Measure one file that is replaced as the site's journal does it."""
    return timed(lambda: write_file(folder / "kept", _BYTES), number)
