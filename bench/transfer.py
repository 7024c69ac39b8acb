"""How fast files go in and out, how much is sent again, and what memory it takes.

`./dev bench transfer [--json] [--mib 1024] [--quick]`

Every figure of ours is a whole job, from the submission to the acknowledged result, over TLS and
through the broker; `rsync -a` over ssh beside it is one copy on the same loopback.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.process import Server, end_as_interrupted
from bench.report import Figure, Table, conclude, note
from bench.world import SITE, USER, World, world
from sekisho.adapters.logging_setup import set_up_logging
from tests.sshd import Sshd, ordinary_user

_MIB: Final = 1 << 20
_SECONDS: Final = 3600.0
_EDITS: Final = 100
_MANIFEST: Final = f"""\
schema = 1
site = "{SITE}"
submitters = ["{USER}"]
max_running = 8

[[command]]
name = "take"
argv = ["/bin/true"]
time_limit_s = 3600
max_running = 8
[[command.input]]
path = "in/**"
max_bytes = "64 GiB"

[[command]]
name = "give"
argv = ["/bin/cp", "-r", "@prepared@", "out"]
time_limit_s = 3600
[[command.output]]
path = "out/**"
max_bytes = "64 GiB"
max_files = 100000
"""


@dataclass(frozen=True, slots=True)
class Sent:
    """One job: its time, the time of its inputs alone, and what crossed the line to the broker."""

    total_s: float
    sent_s: float
    bytes_in: float


@dataclass(slots=True)
class Bench:
    """The world, the plain tools beside it, and what was found so far."""

    here: World
    sshd: Sshd
    broker: Server
    agent: Server
    mib: int
    files: int
    times: int
    table: Table = field(default_factory=lambda: Table("", "sekisho", "rsync -a", "ratio"))
    figures: dict[str, Figure] = field(default_factory=dict)
    client_mb: float = 0.0
    copies: int = 0

    @property
    def prepared(self) -> Path:
        return self.here.site_dir / "prepared"

    def job(self, command: str, source: Path | None = None, settings: Path | None = None) -> Sent:
        """Run one job in a process of its own."""
        into = self.here.root / "result"
        words = [str(settings or self.here.config), command, str(into)]
        before = self._bytes_in()
        done = subprocess.run(
            [sys.executable, "-m", "bench.sender", *words, *([str(source)] if source else [])],
            env=self.here.environ(self.here.user_dir) | {"PYTHONPATH": str(Path.cwd())},
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        told: dict[str, Any] = json.loads(done.stdout)
        shutil.rmtree(into, ignore_errors=True)
        self.client_mb = max(self.client_mb, told["rss_mb"])
        return Sent(told["total_s"], told["sent_s"], self._bytes_in() - before)

    def rsync(self, source: Path) -> float:
        """Return the seconds of one copy to a new place, over ssh."""
        self.copies += 1
        config = self.here.root / "ssh.conf"
        to = f"far:{self.sshd.open_place}/files/{self.copies}/"
        begun = time.perf_counter()
        subprocess.run(["rsync", "-a", "-e", f"ssh -F {config}", str(source), to], check=True)
        return time.perf_counter() - begun

    def _bytes_in(self) -> float:
        text = self.here.metrics()
        found = re.search(r'(?m)^sekisho_chunk_bytes\S*direction="in"\S* (\S+)', text)
        return float(found[1]) if found else 0.0

    def row(self, name: str, ours: float, theirs: float, key: str | None = None) -> None:
        ratio = theirs / ours
        self.table.add(name, f"{ours:.2f} s", f"{theirs:.2f} s", f"{ratio:.2f}")
        if key is not None:
            self.figures[key] = ratio


# ----------------------------------------------------------------------------------- contents


def random_file(path: Path, mib: int) -> Path:
    """Write ``mib`` MiB that nothing can pack."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(_MIB))
    return path


def text_file(path: Path, mib: int) -> Path:
    """Write ``mib`` MiB of a solver's mesh: numbered nodes with three coordinates."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dice, number = random.Random(time.time_ns()), 0  # noqa: S311 (a mesh, not a secret)
    with path.open("w", encoding="ascii") as file:
        while file.tell() < mib * _MIB:
            lines = []
            for _ in range(20_000):
                number += 1
                x, y, z = (dice.uniform(-50, 50) for _ in range(3))
                lines.append(f"{number:8d}, {x:14.6e}, {y:14.6e}, {z:14.6e}\n")
            file.write("".join(lines))
        file.truncate(mib * _MIB)
    return path


# ----------------------------------------------------------------------------------- measures


def cold(bench: Bench, kind: str, make: Callable[[Path, int], Path]) -> None:
    """Measure contents that nobody has seen, in and out."""
    into, out, theirs = [], [], []
    for _ in range(bench.times):
        note(f"{bench.mib} MiB of {kind}, in and out")
        source = bench.here.user_dir / kind
        make(source / "data", bench.mib)
        into.append(bench.job("take", source).total_s)
        theirs.append(bench.rsync(source))
        shutil.rmtree(bench.prepared, ignore_errors=True)
        make(bench.prepared / "data", bench.mib)
        out.append(bench.job("give").total_s)
    copy = statistics.median(theirs)
    bench.row(f"{kind}, in", statistics.median(into), copy, f"cold_{kind}_ratio_rsync")
    bench.row(f"{kind}, out", statistics.median(out), copy, f"cold_{kind}_out_ratio_rsync")


def again(bench: Bench) -> None:
    """Measure what is there already, and what has changed in a hundredth of its places."""
    source = bench.here.user_dir / "again"
    data = random_file(source / "data", bench.mib)
    first = bench.job("take", source).total_s
    repeated = statistics.median(bench.job("take", source).total_s for _ in range(bench.times))
    bench.figures["repeated_speedup"] = first / repeated
    bench.table.add("the same again", f"{repeated:.2f} s", "", f"{first / repeated:.1f} times cold")
    size = data.stat().st_size
    with data.open("r+b") as file:
        for _ in range(max(1, bench.mib // _EDITS)):
            file.seek(random.randrange(size - 100))  # noqa: S311 (a place, not a secret)
            file.write(os.urandom(100))
    _changed(bench, source, size, "scattered")
    data.write_bytes(b"ten lines at the top\n" * 10 + data.read_bytes())
    _changed(bench, source, size, "inserted")


def _changed(bench: Bench, source: Path, size: int, how: str) -> None:
    done = bench.job("take", source)
    ratio = done.bytes_in / size
    bench.figures[f"changed_{how}_bytes_ratio"] = ratio
    bench.table.add(f"changed, {how}", f"{done.total_s:.2f} s", "", f"{100 * ratio:.2f} % sent")


def small(bench: Bench) -> None:
    """Measure many files of 10 KiB."""
    note(f"{bench.files} files of 10 KiB")
    source = bench.here.user_dir / "small"
    for number in range(bench.files):
        folder = source / f"{number // 100:03}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}").write_bytes(os.urandom(10 << 10))
    ours, theirs = bench.job("take", source).total_s, bench.rsync(source)
    bench.row(f"{bench.files} files of 10 KiB", ours, theirs)
    bench.figures["small_files_ratio_rsync"] = ours / theirs


def shaped(bench: Bench, key: str, mbit: float, round_trip_ms: float, mib: int) -> None:
    """Measure sending over a line of a certain rate: as a part of what the line can carry."""
    words = (str(bench.here.port), str(mbit), str(round_trip_ms))
    line = bench.here.start_module("bench.shaping", *words, pipes=True)
    port = int(line.line(20))
    settings = bench.here.root / f"{key}.toml"
    text = bench.here.config.read_text("utf-8").replace(str(bench.here.port), str(port))
    settings.write_text(text, "utf-8")
    for near in ("token", "broker-ca.pem"):
        shutil.copy(bench.here.user_dir / near, bench.here.root)
    for kind, make in (("random", random_file), ("text", text_file)):
        note(f"{mib} MiB of {kind} over {mbit:.0f} Mbit/s and {round_trip_ms:.0f} ms")
        source = bench.here.user_dir / f"{key}-{kind}"
        make(source / "data", mib)
        done = bench.job("take", source, settings)
        ratio = mib * _MIB * 8 / (mbit * 1e6) / done.sent_s
        name = key if kind == "random" else key.replace("link", "text_link")
        bench.figures[name] = ratio
        bench.table.add(f"{kind}, {mbit:.0f} Mbit/s", f"{done.sent_s:.2f} s", "", f"{ratio:.2f}")


def peaks(bench: Bench) -> None:
    """Take the peak memory of all three parties."""
    broker, agent = (_peak_mb(server.pid) for server in (bench.broker, bench.agent))
    bench.figures |= {
        "peak_rss_broker_mb": broker,
        "peak_rss_agent_mb": agent,
        "peak_rss_client_mb": bench.client_mb,
        "cpu_s_broker": bench.broker.cpu_seconds(),
        "cpu_s_agent": bench.agent.cpu_seconds(),
    }
    bench.table.add("peak memory", f"broker {broker:.0f}, agent {agent:.0f} MiB")
    bench.table.add("", f"client {bench.client_mb:.0f} MiB")


def _peak_mb(pid: int) -> float:
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text("ascii"))
    return int(found[1]) / 1024 if found else 0.0


@contextmanager
def _far(place: Path) -> Iterator[Sshd]:
    """Give a running sshd with a place for files."""
    sshd = Sshd(place / "sshd", ordinary_user())
    sshd.prepare()
    sshd.trust()
    (sshd.open_place / "files").mkdir()
    shutil.chown(sshd.open_place / "files", sshd.user)
    (place / "ssh.conf").write_text(sshd.alias("far"))
    sshd.start()
    try:
        yield sshd
    finally:
        sshd.stop()
        shutil.rmtree(sshd.open_place, ignore_errors=True)


def main() -> int:
    """Run the benchmark."""
    line = argparse.ArgumentParser(prog="./dev bench transfer", allow_abbrev=False)
    line.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    line.add_argument("--mib", type=int, default=1024, metavar="N", help="size of the large files")
    line.add_argument("--quick", action="store_true", help="a glance: small sizes, once")
    given = line.parse_args()
    mib = min(given.mib, 64) if given.quick else given.mib
    files, times = (1000, 1) if given.quick else (10_000, 3)
    set_up_logging("warning")
    end_as_interrupted()
    with world() as here, _far(here.root) as sshd:
        manifest = _MANIFEST.replace("@prepared@", str(here.site_dir / "prepared"))
        (here.site_dir / "manifest.toml").write_text(manifest, encoding="utf-8")
        bench = Bench(here, sshd, here.serve(), here.start_agent(), mib, files, times)
        cold(bench, "random", random_file)
        cold(bench, "text", text_file)
        again(bench)
        small(bench)
        shaped(bench, "wan100_link_ratio", 100, 50, min(mib, 256))
        shaped(bench, "wan1000_link_ratio", 1000, 20, mib)
        peaks(bench)
        conclude(bench.table, bench.figures, as_json=given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
