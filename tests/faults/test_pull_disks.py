"""A user's disk that fails (EIO) or is full from then on (ENOSPC), or a death, at every write.

One line tells the error, nothing half-made has the name of a result, and the same command typed
again ends the same job: one start, the right bytes.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

import pytest

from sekisho.client.client import new_job_id
from tests.faults.nth_write import Plan, Prompt, Said
from tests.faults.trio import SITE, Trio
from tests.sweep import places

CONTENT = {f"small-{n}": b"%d" % n for n in range(2)} | {"large": os.urandom(300_000)}
#: A run makes at least so many writes.
FEWEST = 20
#: Which writes fail by themselves, from which on a disk is full, and before which a user dies.
EVERY = {"EIO": 3, "ENOSPC": 5, "KILL": 2}


@dataclass
class Caller:
    """A user who types one command line after the other."""

    trio: Trio
    line: Prompt

    def plan(self, nth: int, error: str) -> Plan:
        place = self.trio.home
        roots = [str(place / name) for name in ("client", "got", "tmp", ".local", ".cache")]
        return Plan(roots=roots, trace=str(place / f"trace-{error}-{nth}"), nth=nth, error=error)

    def run(self, key: str, job: str, plan: Plan | None = None) -> Said:
        place = self.trio.home
        words = (
            *("--config", str(self.trio.client_config), "run", SITE, "work", "--id", job),
            *("-p", f"key={key}", "--into", str(place / "got" / key), "-o", "out/in/**"),
            *("-i", f"in={place / 'given'}"),
        )
        environ = self.trio.environ | {"TMPDIR": str(place / "tmp")}
        return self.line.run(environ, *words, plan=plan)

    def got(self, key: str) -> dict[str, bytes]:
        """Return the files that have got their names."""
        folder = self.trio.home / "got" / key / "out" / "in"
        return {file.name: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def caller(trio: Trio) -> Caller:
    (trio.home / "tmp").mkdir()
    (trio.home / "given").mkdir()
    for name, data in CONTENT.items():
        (trio.home / "given" / name).write_bytes(data)
    return Caller(trio, Prompt())


@pytest.mark.time_limit(900)
@pytest.mark.parametrize("error", EVERY)
def test_a_callers_disk_or_death_at_any_write_costs_a_second_call_at_most(
    caller: Caller, error: str
) -> None:
    """Kills: half a result under its name, a second start, a note that nobody can read again."""
    told = runs = 0
    for nth in places(EVERY[error]):
        key, job, plan = f"at-{nth}", new_job_id(), caller.plan(nth, error)
        said = caller.run(key, job, plan)
        where = (nth, plan.steps()[nth - 1 : nth], said)
        assert "Traceback" not in said.err, where
        died = said.status == -signal.SIGKILL
        assert died == (error == "KILL" and plan.met()), where
        assert died or said.status == 0 or said.err.count("error[") == 1, where
        assert caller.got(key).items() <= CONTENT.items(), where
        told += said.status != 0
        runs += 1
        again = caller.run(key, job)
        assert again.status == 0, (where, again)
        assert caller.got(key) == CONTENT, where
        assert list((caller.trio.home / "got" / key).glob(".sekisho-*")) == [], where
        assert caller.trio.starts()[key] == 1, where
        if not plan.met():
            break
    assert nth > FEWEST
    assert told > runs / 3
