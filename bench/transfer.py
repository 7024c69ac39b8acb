"""How fast files go in and out, how much is sent again, and what memory it takes.

`./dev bench transfer [--json] [--mib 1024] [--quick] [--large GIB]`

Every figure of ours is a whole job, from the submission to the acknowledged result, over TLS and
through the broker. Beside it, on the same loopback, is one copy by `rsync -a` over ssh, by `curl`
to a bare server, and as base64 in JSON. Each is measured next to ours, so that what else the
machine does meets both; told are medians. "Changed": one place in a hundredth of a file's MiB.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.contents import change_places, insert_lines, random_file, small_files, text_file
from bench.disk import on_disk, to_be_had
from bench.large import large
from bench.plain import Plain, plain
from bench.process import Server, end_as_interrupted
from bench.report import Figure, Table, conclude, note
from bench.world import SITE, USER, World, world
from sekisho.adapters.logging_setup import set_up_logging

_MIB: Final = 1 << 20
_SECONDS: Final = 3600.0
_EDITS: Final = 100
_AT_ONCE: Final = 4
_GIB_MIB: Final = 1024
#: What stands beside a cold run, and what its ratio is called.
_TOOLS: Final = {
    "rsync -a": "rsync",
    "rsync -a twice": "relay",
    "curl": "curl",
    "base64": "base64",
}
_LOOKING: Final = """\
[[command]]
name = "{name}"
argv = ["/bin/true"]
time_limit_s = 3600
max_running = 8
[[command.input]]
path = "in/**"
max_bytes = "64 GiB"
"""
_MANIFEST: Final = f"""\
schema = 1
site = "{SITE}"
submitters = ["{USER}"]
max_running = 8

{_LOOKING.format(name="take")}
{_LOOKING.format(name="read")}read_only = true

[[command]]
name = "give"
argv = ["/bin/mv", "@prepared@", "out"]
time_limit_s = 3600
max_output_name_bytes = "1 MiB"
[[command.output]]
path = "out/**"
max_bytes = "64 GiB"
max_files = 100000
"""


@dataclass(frozen=True, slots=True)
class Sent:
    """One job: its time, the time of its inputs alone, what crossed the line, and whose work."""

    total_s: float
    sent_s: float
    bytes_in: float
    cpu_s: tuple[float, float, float]  #: of client, broker, agent


@dataclass(slots=True)
class Bench:
    """The world, the plain tools beside it, and what was found so far."""

    here: World
    plain: Plain
    broker: Server
    agent: Server
    mib: int
    files: int
    times: int
    table: Table = field(default_factory=lambda: Table("", "sekisho", "beside it", "ratio"))
    figures: dict[str, Figure] = field(default_factory=dict)
    client_mb: float = 0.0

    @property
    def prepared(self) -> Path:
        return self.here.site_dir / "prepared"

    def job(self, command: str, source: Path | None = None, settings: Path | None = None) -> Sent:
        """Run one job in a process of its own."""
        return self.jobs(command, [source], settings)

    def jobs(
        self, command: str, sources: Sequence[Path | None], settings: Path | None = None
    ) -> Sent:
        """Run jobs at once, each in a process of its own; the time is that of the last."""
        before, worked = self._bytes_in(), self._worked()
        running = [self._start(command, n, source, settings) for n, source in enumerate(sources)]
        told = [self._told(process) for process in running]
        broker, agent = (now - then for now, then in zip(self._worked(), worked, strict=True))
        for number in range(len(sources)):
            shutil.rmtree(self._into(number), ignore_errors=True)
        self.client_mb = max(self.client_mb, *(one["rss_mb"] for one in told))
        cpu = (sum(one["cpu_s"] for one in told), broker, agent)
        total, sent = (max(one[key] for one in told) for key in ("total_s", "sent_s"))
        return Sent(total, sent, self._bytes_in() - before, cpu)

    def _start(
        self, command: str, number: int, source: Path | None, settings: Path | None
    ) -> subprocess.Popen[str]:
        words = [str(settings or self.here.config), SITE, command, str(self._into(number))]
        return subprocess.Popen(
            [sys.executable, "-m", "bench.sender", *words, *([str(source)] if source else [])],
            env=self.here.environ(self.here.user_dir) | {"PYTHONPATH": str(Path.cwd())},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @staticmethod
    def _told(process: subprocess.Popen[str]) -> dict[str, Any]:
        out, said = process.communicate(timeout=_SECONDS)
        if process.returncode:
            raise SystemExit(said)
        told: dict[str, Any] = json.loads(out)
        return told

    def _into(self, number: int) -> Path:
        return self.here.root / f"result-{number}"

    def _worked(self) -> tuple[float, float]:
        return self.broker.cpu_seconds(), self.agent.cpu_seconds()

    def _bytes_in(self) -> float:
        text = self.here.metrics()
        found = re.search(r'(?m)^sekisho_chunk_bytes\S*direction="in"\S* (\S+)', text)
        return float(found[1]) if found else 0.0

    def row(self, name: str, ours: float, theirs: float, key: str | None = None) -> None:
        ratio = theirs / ours
        self.table.add(name, f"{ours:.2f} s", f"{theirs:.2f} s", f"{ratio:.2f}")
        if key is not None:
            self.figures[key] = ratio


# ----------------------------------------------------------------------------------- measures


def cold(bench: Bench, kind: str, make: Callable[[Path, int], Path]) -> None:
    """Measure contents that nobody has seen, in and out."""
    into: list[Sent] = []
    out: list[Sent] = []
    others: dict[str, list[float]] = {tool: [] for tool in _TOOLS}
    for _ in range(bench.times):
        note(f"{bench.mib} MiB of {kind}, in and out")
        source = bench.here.user_dir / kind
        file = make(source / "data", bench.mib)
        into.append(bench.job("take", source))
        others["rsync -a"].append(bench.plain.rsync(source))
        others["rsync -a twice"].append(bench.plain.relayed(source))
        others["curl"].append(bench.plain.curl(file))
        others["base64"].append(bench.plain.base64(file))
        shutil.rmtree(bench.prepared, ignore_errors=True)
        make(bench.prepared / "data", bench.mib)
        out.append(bench.job("give"))
    there, back = (median(job.total_s for job in jobs) for jobs in (into, out))
    for tool, seconds in others.items():
        key = f"cold_{kind}_ratio_{_TOOLS[tool]}"
        bench.row(f"{kind}, in, beside {tool}", there, median(seconds), key)
    copy = median(others["rsync -a"])
    bench.row(f"{kind}, out, beside rsync -a", back, copy, f"cold_{kind}_out_ratio_rsync")
    _work(bench, f"{kind}, in", f"cold_{kind}", into)
    _work(bench, f"{kind}, out", f"cold_{kind}_out", out)


def _work(bench: Bench, name: str, key: str, jobs: Sequence[Sent]) -> None:
    """Tell of the processors' seconds for each GiB, by party."""
    cells = []
    for number, party in enumerate(("client", "broker", "agent")):
        spent = median(job.cpu_s[number] for job in jobs) * _GIB_MIB / bench.mib
        bench.figures[f"{key}_cpu_s_gib_{party}"] = spent
        cells.append(f"{party} {spent:.2f}")
    bench.table.add(f"{name}: CPU s/GiB", *cells)


def again(bench: Bench) -> None:
    """Measure what is there already, and what has changed in a hundredth of its MiB."""
    note("the same again, and changed")
    source = bench.here.user_dir / "again"
    data = random_file(source / "data", bench.mib)
    first = bench.job("take", source).total_s
    bench.job("take", source)  # of a file that changed just now nothing is remembered
    jobs = [bench.job("take", source) for _ in range(bench.times)]
    _repeated(bench, first, jobs, "the same again", "repeated")
    bench.job("read", source)  # the first that only reads it: it puts the file in stock
    jobs = [bench.job("read", source) for _ in range(bench.times)]
    _repeated(bench, first, jobs, "the same again, shared", "repeated_shared")
    size = data.stat().st_size
    change_places(data, max(1, bench.mib // _EDITS))
    _changed(bench, source, size, "scattered")
    insert_lines(data)
    _changed(bench, source, size, "inserted")


def cloned(bench: Bench) -> None:
    """Measure the same again where the site's disk clones files; the agent is another one then."""
    if not to_be_had():
        note("no disk that clones: that takes root, and mkfs.xfs")
        return
    note("the same again, cloned")
    bench.agent.stop()
    size = 4 * bench.mib * _MIB + (2 << 30)  # with less than a GiB of room nothing is kept
    within = on_disk(bench.here.root / "disk", size, bench.here.site_dir / "work")
    bench.agent = bench.here.restart_agent(*within)
    source = bench.here.user_dir / "cloned"
    random_file(source / "data", bench.mib)
    first = bench.job("take", source).total_s
    bench.job("take", source)
    jobs = [bench.job("take", source) for _ in range(bench.times)]
    _repeated(bench, first, jobs, "the same again, cloned", "repeated_cloned")


def _repeated(bench: Bench, first: float, jobs: Sequence[Sent], name: str, key: str) -> None:
    """Tell of ``jobs`` with the same input as one that took ``first`` seconds."""
    took = median(job.total_s for job in jobs)
    spent = median(sum(job.cpu_s) for job in jobs) * _GIB_MIB / bench.mib
    bench.figures[f"{key}_speedup"] = first / took
    bench.figures[f"{key}_cpu_s_gib"] = spent
    cells = (f"{took:.2f} s", f"CPU s/GiB {spent:.2f}", f"{first / took:.1f} times cold")
    bench.table.add(name, *cells)


def _changed(bench: Bench, source: Path, size: int, how: str) -> None:
    done = bench.job("take", source)
    ratio = done.bytes_in / size
    bench.figures[f"changed_{how}_bytes_ratio"] = ratio
    bench.table.add(f"changed, {how}", f"{done.total_s:.2f} s", "", f"{100 * ratio:.2f} % sent")


def small(bench: Bench) -> None:
    """Measure many files of 10 KiB, in and out."""
    into, out, copies = [], [], []
    source = bench.here.user_dir / "small"
    shutil.rmtree(bench.prepared, ignore_errors=True)
    for _ in range(bench.times):
        note(f"{bench.files} files of 10 KiB, in and out")
        small_files(source, bench.files)
        into.append(bench.job("take", source).total_s)
        copies.append(bench.plain.rsync(source))
        small_files(bench.prepared, bench.files)
        out.append(bench.job("give").total_s)
    copy = median(copies)
    for way, ours, key in (("in", into, "small_files"), ("out", out, "small_files_out")):
        bench.row(f"{bench.files} files of 10 KiB, {way}, beside rsync -a", median(ours), copy)
        bench.figures[f"{key}_ratio_rsync"] = median(ours) / copy


def at_once(bench: Bench) -> None:
    """Measure several jobs at once, as many copies beside them."""
    note(f"{_AT_ONCE} jobs at once")
    sources = [bench.here.user_dir / f"at-once-{n}" for n in range(_AT_ONCE)]
    for source in sources:
        random_file(source / "data", max(1, bench.mib // _AT_ONCE))
    ours, theirs = bench.jobs("take", sources).total_s, bench.plain.rsync(*sources)
    bench.row(f"{_AT_ONCE} jobs at once, beside rsync -a", ours, theirs, "at_once_ratio_rsync")


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


def peaks(bench: Bench, when: str = "") -> None:
    """Take the peak memory of all three parties so far."""
    broker, agent = (_peak_mb(server.pid) for server in (bench.broker, bench.agent))
    bench.figures |= {
        f"peak_rss{when}_broker_mb": broker,
        f"peak_rss{when}_agent_mb": agent,
        f"peak_rss{when}_client_mb": bench.client_mb,
    }
    cells = (f"broker {broker:.0f}", f"agent {agent:.0f}", f"client {bench.client_mb:.0f}")
    bench.table.add(f"peak memory, MiB{when.replace('_', ' ')}", *cells)


def _peak_mb(pid: int) -> float:
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text("ascii"))
    return int(found[1]) / 1024 if found else 0.0


def everything(bench: Bench) -> None:
    """Measure all of it, one after the other."""
    cold(bench, "random", random_file)
    cold(bench, "text", text_file)
    again(bench)
    small(bench)
    shaped(bench, "wan100_link_ratio", 100, 50, min(bench.mib, 256))
    shaped(bench, "wan1000_link_ratio", 1000, 20, bench.mib)
    peaks(bench)
    at_once(bench)
    peaks(bench, "_at_once")
    cloned(bench)


def main() -> int:
    """Run the benchmark."""
    line = argparse.ArgumentParser(prog="./dev bench transfer", allow_abbrev=False)
    line.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    line.add_argument("--mib", type=int, default=1024, metavar="N", help="size of the large files")
    line.add_argument("--quick", action="store_true", help="a glance: small sizes, once")
    line.add_argument("--large", type=int, metavar="GIB", help="instead: one file, nginx, 20 cuts")
    given = line.parse_args()
    mib = min(given.mib, 64) if given.quick else given.mib
    files, times = (1000, 1) if given.quick else (10_000, 3)
    set_up_logging("warning")
    end_as_interrupted()
    with world() as here, plain(here) as others:
        manifest = _MANIFEST.replace("@prepared@", str(here.site_dir / "prepared"))
        (here.site_dir / "manifest.toml").write_text(manifest, encoding="utf-8")
        bench = Bench(here, others, here.serve(), here.start_agent(), mib, files, times)
        if given.large:
            large(bench, given.large)
            peaks(bench)
        else:
            everything(bench)
        conclude(bench.table, bench.figures, as_json=given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
