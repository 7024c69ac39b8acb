"""Push mode with a disk that fails (EIO), or is full from then on (ENOSPC), at any write.

Of the writes of one side some, or each (`--sweep`), fail in a run of their own. The error is told
in one line, nothing half-made has the name of a result, and the same command without the fault ends
the same job: one start, the right bytes.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sekisho.adapters.lane_gate import GateLane
from sekisho.adapters.patience import Patience
from sekisho.adapters.sitelog_directory import verify_log
from sekisho.client.client import Client, new_job_id
from sekisho.client.spec import JobSpec
from tests.faults.nth_write import Plan, Prompt, Said, armed
from tests.gated import SITE as GATED
from tests.gated import GatedSite, Local, gated_site, local_gate
from tests.sweep import places
from tests.two_sites import BARE, TwoSites, two_sites
from tests.waiting import until

pytestmark = pytest.mark.time_limit(900)
SITES = (GATED, BARE)
ERRORS = ("EIO", "ENOSPC")
CONTENT = os.urandom(700_000)
#: A run makes at least so many writes on the caller's side, and at a gate.
FEWEST = {GATED: 20, BARE: 40}
FEWEST_AT_GATE = 100
#: How far apart the writes are that fail by themselves, and from which on a disk is full.
EVERY = {"EIO": 3, "ENOSPC": 5}
SECONDS = 180


@dataclass
class Caller:
    """A user who types one command line after the other."""

    sites: TwoSites
    line: Prompt
    place: Path

    def __post_init__(self) -> None:
        self.sites.house.site.go.touch()
        (self.place / "in.txt").write_bytes(CONTENT)
        (self.place / "tmp").mkdir()
        self._numbers = itertools.count()

    def plan(self, nth: int = 0, error: str = "EIO") -> Plan:
        """Return a plan for what this side writes: notes, results, what its programs say."""
        mine = [str(self.place / name) for name in ("state", "got", "tmp")]
        trace = str(self.place / f"trace{next(self._numbers)}")
        return Plan(roots=[*mine, str(self.sites.runtime)], trace=trace, nth=nth, error=error)

    def run(self, site: str, job: str, plan: Plan | None = None) -> Said:
        into = self.place / "got" / job
        words = (
            *("run", site, "slow", "--id", job, "--into", str(into)),
            *("--input", f"in.txt={self.place}/in.txt", "--output", "out.txt"),
        )
        environ = self.sites.environ() | {"TMPDIR": str(self.place / "tmp")}
        return self.line.run(environ, *words, plan=plan)

    def got(self, job: str) -> dict[str, bytes]:
        """Return the files that have got their names."""
        folder = self.place / "got" / job
        return {
            str(file.relative_to(folder)): file.read_bytes()
            for file in folder.rglob("*")
            if file.is_file() and not file.relative_to(folder).parts[0].endswith(".part")
        }

    def starts(self, job: str) -> int:
        file = self.sites.house.site.witness
        return file.read_text().count(job) if file.exists() else 0


@pytest.fixture
def caller(tmp_path: Path) -> Iterator[Caller]:
    with two_sites(tmp_path) as sites:
        yield Caller(sites, Prompt(), tmp_path)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("site", SITES)
def test_a_callers_disk_that_fails_at_any_write_costs_a_second_call_at_most(
    caller: Caller, site: str, error: str
) -> None:
    """Kills: half a result under its name, a second start, a note that nobody can read again."""
    told = runs = 0
    for nth in places(EVERY[error]):
        job, plan = new_job_id(), caller.plan(nth, error)
        said = caller.run(site, job, plan)
        where = (nth, plan.steps()[nth - 1 : nth], said)
        assert "Traceback" not in said.err, where
        assert said.status == 0 or said.err.count("error[") == 1, where
        assert caller.got(job) in ({}, {"out.txt": CONTENT}), where
        told += said.status != 0
        runs += 1
        again = caller.run(site, job)
        assert again.status == 0, (where, again)
        assert caller.got(job) == {"out.txt": CONTENT}, where
        assert caller.starts(job) == 1, where
        if not plan.met():
            break
    assert nth > FEWEST[site]
    assert told > runs / 3


# ------------------------------------------------------------------ the site's side of a gate

#: From the write that finds a full disk on, so many more are tried before there is room.
FULL_STEPS = 3


@dataclass
class Yard:
    """A gated site without an ssh in front of it, and whoever calls there."""

    site: GatedSite
    place: Path

    def plan(self, nth: int, error: str) -> Plan:
        here = self.place / f"plan{nth}"
        here.mkdir()
        names = {"trace": str(here / "trace"), "mended": str(here / "mended")}
        return Plan(roots=[str(self.site.home)], nth=nth, error=error, **names)

    @contextmanager
    def caller(self, plan: Plan) -> Iterator[Client]:
        """Give a client; all gates that it opens, and their carriers, are part of one plan."""

        def opened() -> Local:
            return local_gate(self.site.home, first=armed(plan))

        soon = Patience(limit_s=120, wait=lambda s: threading.Event().wait(min(s, 0.05)))
        client = Client(GateLane(GATED, opened, soon))
        try:
            yield client
        finally:
            client.close()
            self.site.kill_carrier()

    def starts(self, job: str) -> int:
        return self.site.witness.read_text().count(job) if self.site.witness.exists() else 0

    def run(self, plan: Plan) -> tuple[str, str | None, bool]:
        """Return how a job of fresh content ended, and whether its result is what it should be."""
        content, source = os.urandom(700_000), self.place / "in.txt"
        source.write_bytes(content)
        job, given = new_job_id(), {"in.txt": source}
        spec = JobSpec(site=GATED, command="witnessed", inputs=given, outputs=["out.txt"])
        with self.caller(plan) as client, ThreadPoolExecutor(1) as beside:
            waited = beside.submit(lambda: client.submit(spec, job_id=job).wait(timeout=SECONDS))
            if plan.error == "ENOSPC":
                later = plan.nth + FULL_STEPS
                until(lambda: waited.done() or len(plan.steps()) >= later, "more writes")
                Path(plan.mended).touch()
            end = waited.result(SECONDS)
            if end.state != "succeeded":
                return end.state, end.code, self.starts(job) == 0
            (file,) = client.job(job).result(self.place / "got" / job).files
            return end.state, end.code, self.starts(job) == 1 and file.read_bytes() == content * 2


@pytest.mark.parametrize("error", ERRORS)
def test_a_gates_disk_that_fails_at_any_write_costs_time_and_no_result(
    tmp_path: Path, error: str
) -> None:
    """Gate and carrier: P1 to P4. Kills: what was computed, given up for want of room."""
    yard = Yard(gated_site(tmp_path), tmp_path)
    for nth in places(EVERY[error]):
        plan = yard.plan(nth, error)
        end = yard.run(plan)
        where = (nth, plan.steps()[nth - 1 : nth], end)
        assert end in (("succeeded", None, True), ("failed", "site.disk_full", True)), where
        assert end[0] == "succeeded" or error == "ENOSPC", where
        if not plan.met():
            break
    assert nth > FEWEST_AT_GATE
    assert verify_log(yard.site.home / "state")[1] is None
