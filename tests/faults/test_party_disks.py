"""Pull mode with a disk that fails (EIO), or is full for a while (ENOSPC), at an agent or a broker.

Every few writes one fails, in a run of its own; `./dev test --sweep` takes all.
Whoever ends itself is started again, as a service is. P1 to P4, P6: one start, the right bytes or a
word that says why not, a log that verifies, every other job as it was. SQLite's own writes are not
seen here.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from sekisho.adapters.sitelog_directory import verify_log
from sekisho.client.client import Client, new_job_id
from sekisho.client.result import Result
from sekisho.client.spec import JobSpec
from sekisho.compose.client import client
from sekisho.domain.errors import SekishoError
from tests.faults.nth_write import Plan, armed
from tests.faults.program import Program
from tests.faults.trio import Trio
from tests.proxy import HOST
from tests.sweep import FULL, places

pytestmark = pytest.mark.time_limit(7200 if FULL else 900)
SECONDS: Final = 180
OFFER_SECONDS: Final = 5  #: by then an offer has come, or went to the line of the agent before
SIZES: Final = {"small-1": 1, "small-2": 2, "large": 700_000}
#: From the write that finds a full disk on, so many more are tried before there is room: whoever
#: hears of it from a broker asks again after 5 s only.
FULL_STEPS: Final = {"agent": 3, "broker": 0}
#: How far apart the writes are that fail, and which is the first.
EVERY: Final = {
    ("agent", "EIO"): (7, 1),
    ("agent", "ENOSPC"): (7, 5),
    ("broker", "EIO"): (5, 1),
    ("broker", "ENOSPC"): (8, 5),
}
#: A run makes at least so many writes.
FEWEST: Final = {"agent": 90, "broker": 35}
#: What programs, or those who asked them, say of a disk.
WORDS: Final = ("storage.", "store.", "fetch.io", "disk_full", "site.work_base", "system.refused")


@dataclass
class Party:
    """The agent or the broker of a trio, and how the jobs that it has seen through ended."""

    name: str
    error: str
    trio: Trio
    client: Client = field(init=False)
    pauses: list[str] = field(default_factory=list)
    ends: dict[str, str] = field(default_factory=dict)

    @property
    def program(self) -> Program:
        return self.trio.agent if self.name == "agent" else self.trio.broker

    @property
    def root(self) -> Path:
        return self.trio.site if self.name == "agent" else self.trio.broker_config.parent

    def heard(self) -> int:
        """Return how often agent, broker or user have said something of a disk so far."""
        said = [*self.trio.agent.lines, *self.trio.broker.lines, *self.pauses]
        return sum(any(word in str(line) for word in WORDS) for line in said)

    def pause(self, error: SekishoError | None, _: float) -> None:
        self.pauses.append(error.code if error else "")

    def plan(self, nth: int) -> Plan:
        here = self.trio.home / f"at-{nth}"
        here.mkdir()
        names = {"trace": str(here / "trace"), "mended": str(here / "mended")}
        return Plan(roots=[str(self.root)], nth=nth, error=self.error, **names)

    def start(self, first: str = "") -> None:
        """Start it; it may end at any moment, even before it is ready."""
        if self.name == "agent":
            self.program.start(("agent", "--dir", self.trio.site), self.trio.environ, first=first)
            return
        start = len(self.program.lines)
        words = ("broker", "serve", "-c", self.trio.broker_config)
        self.program.start(words, self.trio.environ, first=first)
        ready = self.program.eventually(lambda: self.program.find("broker_ready", start))
        if ready:
            self.trio.proxy.upstream = int(ready["port"])

    def job(self, key: str) -> Result:
        """Submit and wait, again after an error that was told; return what it ended with."""
        job, spec = new_job_id(), self.trio.spec(key, source=self.trio.home / "given")
        try:
            return self._call(job, spec, key)
        except SekishoError:
            return self._call(job, spec, key)

    def _call(self, job: str, spec: JobSpec, key: str) -> Result:
        ended = self.client.submit(spec, job_id=job).wait(timeout=SECONDS)
        if ended.state == "succeeded":
            self.client.job(job).result(self.trio.home / "got" / key, timeout=SECONDS)
        return ended

    def course(self, key: str, plan: Plan) -> Result:
        """Return how a job ended that was submitted when the party's writes fail as planned."""
        self.start(armed(plan))
        with ThreadPoolExecutor(1) as beside:
            waited = beside.submit(self.job, key)
            self._await(waited, plan)
            Path(plan.mended).touch()
            while not waited.done():
                if not self.program.running:
                    self.start()
                self._await(waited)
            return waited.result()

    def _await(self, waited: Future[Result], plan: Plan | None = None) -> None:
        """Wait for the end of the job or of the party, or until enough writes found no room."""

        def due() -> bool:
            mended = plan is not None and len(plan.steps()) >= plan.nth + FULL_STEPS[self.name]
            return mended or waited.done() or not self.program.running

        while not self.program.eventually(due, OFFER_SECONDS):
            self.trio.let_offers_end()

    def check(self, key: str, end: Result, where: object) -> None:
        """See that the job has ended as ``end`` says, and that nothing else has changed."""
        trio = self.trio
        whole = end.state == "succeeded"
        assert whole or (end.state, end.code) == ("failed", "site.disk_full"), where
        assert whole or (self.name, self.error) == ("agent", "ENOSPC"), where
        assert trio.starts()[key] == whole, where
        got = files(trio.home / "got" / key / "out" / "in" / "given")
        assert got == (files(trio.home / "given") if whole else {}), where
        assert [line for line in self.program.lines if "Traceback" in str(line)] == [], where
        self.ends[end.job] = end.state
        assert trio.states() == self.ends, where


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(("name", "error"), EVERY)
def test_a_partys_disk_that_fails_at_any_write_costs_time_and_no_result(
    still: Trio, name: str, error: str
) -> None:
    """Kills: half a result, a second start, a log with a hole, a job that nobody ends."""
    given = still.home / "given"
    given.mkdir()
    if name == "agent":
        still.start_broker()
        still.point_at(f"http://{HOST}:{still.proxy.upstream}")  # it notices at once who is gone
    else:
        still.start_agent()
    told = runs = 0
    party = Party(name, error, still)
    with client(still.client_config, on_pause=party.pause) as party.client:
        for nth in places(*EVERY[name, error]):
            for file, size in SIZES.items():
                (given / file).write_bytes(os.urandom(size))
            plan, before_it = party.plan(nth), party.heard()
            end = party.course(f"at-{nth}", plan)
            where = (nth, plan.steps()[nth - 1 : nth], end)
            party.check(f"at-{nth}", end, where)
            told += party.heard() > before_it
            runs += 1
            party.program.kill()
            assert name == "broker" or verify_log(still.site / "state")[1] is None, where
            if not plan.met():
                break
    still.agent.kill()
    assert verify_log(still.site / "state")[1] is None
    assert nth > FEWEST[name]
    assert told > runs / 4
