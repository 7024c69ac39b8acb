"""What push mode costs beside plain ssh and rsync, in the same run: `./dev bench ssh`.

A real sshd on this machine, and behind it a bare and a gated site. Every figure of ours has the
plain tool's beside it: `ssh host true` with a new and with a shared connection, `rsync -a` of the
same file. Keys without a kind in their name are the bare site's, as in `mission.md`'s rows S1-S10.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.push_world import KINDS, SIDES, PushWorld, push_world, shaped
from bench.report import Figure, Table, conclude, note
from sekisho.client.client import Client
from sekisho.client.spec import JobSpec

_MIB: Final = 1 << 20
_PREFIX: Final = {"bare": "", "gated": "gated_"}


@dataclass(frozen=True, slots=True)
class Cost:
    """What one transfer took: seconds, and CPU seconds of each of `SIDES`."""

    wall_s: float
    cpu_s: dict[str, float]

    @property
    def total_s(self) -> float:
        return sum(self.cpu_s.values())


@dataclass(slots=True)
class Bench:
    """One run."""

    world: PushWorld
    client: Client
    mib: int
    rounds: int
    figures: dict[str, Figure] = field(default_factory=dict)
    costs: dict[str, list[Cost]] = field(default_factory=dict)
    ratios: dict[str, list[float]] = field(default_factory=dict)
    _count: Iterator[int] = field(default_factory=itertools.count)

    # ------------------------------------------------------------------------ starts

    def starts(self, samples: int) -> None:
        """Measure jobs that do nothing beside `ssh host true`."""
        shared = ("-o", "ControlMaster=auto", "-o", f"ControlPath={self.world.place}/plain")
        self.figures["ssh_true_new_ms"] = 1000 * _median(5, self._true)
        self._true(*shared, "-o", "ControlPersist=120")
        self.figures["ssh_true_warm_ms"] = 1000 * _median(samples, lambda: self._true(*shared))
        for kind in KINDS:
            first = _seconds(lambda kind=kind: self.one(kind, "noop"))  # type: ignore[misc]
            warm = _median(samples, lambda kind=kind: self.one(kind, "noop"))  # type: ignore[misc]
            self.figures[f"{_PREFIX[kind]}noop_first_ms"] = 1000 * first
            self.figures[f"{_PREFIX[kind]}noop_warm_ms"] = 1000 * warm

    def _true(self, *words: str) -> None:
        """Run `ssh host true` as anybody would, with the user's own settings."""
        config = str(self.world.ssh_config)
        subprocess.run(["ssh", "-F", config, *words, "bare", "true"], check=True)

    # --------------------------------------------------------------------- transfers

    def transfers(self) -> None:
        """Measure a file of random bytes each way, several times, one way beside the other."""
        for number in range(self.rounds):
            note(f"round {number + 1} of {self.rounds}")
            self._round(_random_file(self.world.place / "big.inp", self.mib))
        for name, found in self.ratios.items():
            way, _, kind = name.partition(" ")
            self.figures[f"{_PREFIX[kind]}{way}_ratio_rsync"] = statistics.median(found)
        for name, costs in self.costs.items():
            way, _, kind = name.partition(" ")
            wall = statistics.median(cost.wall_s for cost in costs)
            self.figures[f"{kind}_{way}_mib_s"] = self.mib / wall
            total = statistics.median(cost.total_s for cost in costs)
            self.figures[f"{kind}_{way}_cpu_s_gib"] = total * 1024 / self.mib
        peaks = self.world.peak_mib()
        self.figures |= {f"gated_{side}_peak_mib": peak for side, peak in peaks.items()}

    def _round(self, big: Path) -> None:
        there, back = self._there / big.name, Path(f"{big}.back")
        self._plain("in", lambda: self._rsync(str(big), f"bare:{there}"))
        for kind in KINDS:
            fresh = self.world.place / f"{kind}-{next(self._count)}.inp"  # its name is new, too
            shutil.copyfile(big, fresh)
            self._ours("in", kind, lambda kind=kind, fresh=fresh: self.one(kind, "noop", fresh))  # type: ignore[misc]
        self._plain("out", lambda: self._rsync(f"bare:{there}", str(back)))
        for kind in KINDS:
            shutil.copyfile(big, self.world.ready)
            self._ours("out", kind, lambda kind=kind: self.one(kind, "give"))  # type: ignore[misc]
        for plain in (there, back):
            plain.unlink()
        shutil.rmtree(self._results)  # what removing takes is nobody's cost

    @property
    def _results(self) -> Path:
        return self.world.place / "results"

    @property
    def _there(self) -> Path:
        place = self.world.place / "plain-files"
        place.mkdir(exist_ok=True)
        return place

    def _rsync(self, source: str, target: str) -> None:
        shell = f"ssh -F {self.world.ssh_config}"
        subprocess.run(["rsync", "-a", "-e", shell, source, target], check=True)

    def _plain(self, way: str, act: Callable[[], None]) -> None:
        self._note(f"{way} rsync", self._cost(act))

    def _ours(self, way: str, kind: str, act: Callable[[], None]) -> None:
        noop = _median(3, lambda: self.one(kind, "noop"))
        cost = self._cost(act)
        cost = Cost(cost.wall_s - noop, cost.cpu_s)
        self._note(f"{way} {kind}", cost)
        plain = self.costs[f"{way} rsync"][-1].wall_s
        self.ratios.setdefault(f"{way} {kind}", []).append(plain / cost.wall_s)

    def _note(self, name: str, cost: Cost) -> None:
        note(f"  {name}: {cost.wall_s:.2f} s, {cost.total_s:.2f} s of CPU")
        self.costs.setdefault(name, []).append(cost)

    def _cost(self, act: Callable[[], None]) -> Cost:
        os.sync()  # what we wrote to prepare is not to be waited for by whoever syncs its own
        before = self.world.cpu_seconds()
        wall = _seconds(act)
        after = self.world.cpu_seconds()
        # a carrier that had nothing to do may have left since, and taken its count along
        return Cost(wall, {side: max(0.0, after[side] - before[side]) for side in SIDES})

    def one(self, site: str, command: str, *inputs: Path, through: Client | None = None) -> None:
        """Run one job from its submission to its result on disk."""
        spec = JobSpec(site=site, command=command, inputs=list(inputs), outputs=_OUTPUTS[command])
        into = self._results / str(next(self._count))  # what is there already is not fetched
        (through or self.client).submit(spec).result(into)

    # ---------------------------------------------------------------- changes, slow lines

    def changed(self) -> None:
        """Measure the bytes on the line for 1 % changed, by those of rsync over its own copy."""
        big = _random_file(self.world.place / "big.inp", self.mib)
        self._rsync(str(big), f"bare:{self._there}/")
        for kind in KINDS:
            self.one(kind, "noop", big)
        with big.open("r+b") as stream:
            stream.seek(big.stat().st_size // 2)
            stream.write(os.urandom(max(1, big.stat().st_size // 100)))
        plain = self._sent(lambda: self._rsync(str(big), f"bare-far:{self._there}/"))
        with self.world.client(far=True) as far:
            for kind in KINDS:
                ours = self._sent(lambda kind=kind: self.one(kind, "noop", big, through=far))  # type: ignore[misc]
                self.figures[f"{_PREFIX[kind]}changed_1pct_bytes_ratio"] = ours / plain

    def _sent(self, act: Callable[[], None]) -> int:
        before = self.world.line.out
        act()
        return self.world.line.out - before

    def slow_line(self, mbit: int) -> None:
        """Measure the gated site beside rsync where the line is the bound."""
        with shaped(self.world.server.port, mbit, 2) as port, self.world.client(far=True) as far:
            self.world.lead_far(port)
            big = _random_file(self.world.place / "big.inp", self.mib)
            there = self._there / big.name
            there.unlink(missing_ok=True)
            self.one("gated", "noop", through=far)
            plain = _seconds(lambda: self._rsync(str(big), f"bare-far:{there}"))
            ours = _seconds(lambda: self.one("gated", "noop", big, through=far))
            self.figures[f"gated_{mbit}mbit_in_ratio_rsync"] = plain / ours
            plain = _seconds(lambda: self._rsync(f"bare-far:{there}", f"{big}.back"))
            shutil.copyfile(big, self.world.ready)
            ours = _seconds(lambda: self.one("gated", "give", through=far))
            self.figures[f"gated_{mbit}mbit_out_ratio_rsync"] = plain / ours
            self.world.disconnect()

    # ------------------------------------------------------------------------ tables

    def cost_table(self) -> Table:
        """Return the medians of the transfers."""
        sides = [f"{side}, CPU s/GiB" for side in SIDES]
        table = Table("", "MiB/s", "of rsync", *sides, "sum")
        for name, costs in self.costs.items():
            wall = statistics.median(cost.wall_s for cost in costs)
            shares = [statistics.median(cost.cpu_s[side] for cost in costs) for side in SIDES]
            cells = [f"{share * 1024 / self.mib:.2f}" for share in [*shares, sum(shares)]]
            ratio = statistics.median(self.ratios.get(name, [1.0]))
            table.add(name, f"{self.mib / wall:.0f}", f"{ratio:.2f}", *cells)
        return table


_OUTPUTS: Final[dict[str, list[str]]] = {"noop": [], "give": ["big.out"]}


def _seconds(act: Callable[[], object]) -> float:
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def _median(number: int, act: Callable[[], object]) -> float:
    return statistics.median(_seconds(act) for _ in range(number))


def _random_file(file: Path, mib: int) -> Path:
    with file.open("wb") as stream:
        for _ in range(mib):
            stream.write(os.urandom(_MIB))
    return file


def main() -> int:
    """Run the benchmark."""
    line = argparse.ArgumentParser(prog="./dev bench ssh", allow_abbrev=False)
    line.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    line.add_argument("--mib", type=int, default=1024, metavar="N", help="size of the transfers")
    line.add_argument("--samples", type=int, default=20, metavar="N", help="jobs that do nothing")
    line.add_argument("--rounds", type=int, default=3, metavar="N", help="of the transfers")
    line.add_argument("--mbit", type=int, default=1000, metavar="N", help="rate of the slow line")
    line.add_argument("--only", choices=("starts", "transfers", "changed", "slow"))
    given = line.parse_args()
    place = Path(tempfile.mkdtemp(prefix="sekisho-bench-", dir="/var/tmp"))
    try:
        with push_world(place) as world, world.client() as client:
            bench = Bench(world, client, given.mib, given.rounds)
            parts: dict[str, Callable[[], None]] = {
                "starts": lambda: bench.starts(given.samples),
                "transfers": bench.transfers,
                "changed": bench.changed,
                "slow": lambda: bench.slow_line(given.mbit),
            }
            for name, part in parts.items():
                if given.only in (None, name):
                    part()
    finally:
        shutil.rmtree(place)
    if bench.costs:
        bench.cost_table().show()
    table = Table("figure", "value")
    for name, value in bench.figures.items():
        table.add(name, f"{value:.2f}")
    conclude(table, bench.figures, as_json=given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
