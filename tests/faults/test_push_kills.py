"""Every process of push mode is killed at every step of a job, at both kinds of site.

`kill -9`, while the step is held: before it begins, amid what it carries, and after it is done but
before anybody heard so. The command goes on, or is typed again, and ends in the one state that is
true: one start, the right bytes, and nothing half-made under a result's name at any moment.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sekisho.client.client import new_job_id
from tests.faults import turnstile
from tests.faults.nth_write import Prompt, Said
from tests.faults.turnstile import Moment, door
from tests.gated import SITE as GATED
from tests.gated import gate_line
from tests.two_sites import BARE, TwoSites, two_sites
from tests.waiting import until

pytestmark = pytest.mark.time_limit(600)
SIZE = 2 << 20
CARRIES = {BARE: ("push", "bring"), GATED: ("put", "fetch")}
STEPS = {
    BARE: ("make", "push", "start", "look", "left", "bring", "tail"),
    GATED: ("submit", "missing", "put", "start", "view", "fetch", "received"),
}
#: The program ends when somebody has begun to wait for it.
WAITING = ("before look", "before view")


@dataclass
class Yard:
    """Both sites behind turnstiles, and a user who types command lines."""

    sites: TwoSites
    line: Prompt
    place: Path
    kill: Callable[[Moment], Sequence[int]] = lambda _: ()
    strike: Callable[[int], object] = lambda pid: os.kill(pid, signal.SIGKILL)
    cuts: bool = True  #: whether a kill ends the line that the moment was told of
    job: str = ""
    wanted: list[str] = field(default_factory=list)
    whole: dict[str, bytes] = field(default_factory=dict)
    half: list[str] = field(default_factory=list)
    lines: set[int] = field(default_factory=set)  #: turnstiles, by process
    told: set[str] = field(default_factory=set)  #: their lines
    dead: set[str] = field(default_factory=set)  #: those that nobody listens to any more
    guard: threading.Lock = field(default_factory=threading.Lock)

    def heard(self, moment: Moment) -> None:
        """Kill at the next moment that is wanted; what is published by then is whole."""
        with self.guard:
            self.lines.add(moment.turnstile)
            self.told.add(moment.line)
            if self.wanted[:1] == [moment.name] and moment.line not in self.dead:
                self._kill(moment)
            if moment.name in WAITING and moment.name not in self.wanted:
                self.sites.house.site.go.touch()

    def _kill(self, moment: Moment) -> None:
        struck = 0
        for pid in self.kill(moment):
            with suppress(ProcessLookupError):  # of an earlier kill, and gone just now
                self.strike(pid)
                struck += 1
        if struck:
            self.wanted.pop(0)
            self.dead |= self.told if self.cuts else set()
        if any(self.whole.get(name) != data for name, data in self.published().items()):
            self.half.append(moment.name)

    def begin(self, site: str, wanted: Sequence[str]) -> None:
        """Be ready for a new job, whose input is like no other's."""
        content = os.urandom(SIZE)
        (self.place / "in.txt").write_bytes(content)
        self.sites.house.site.go.unlink(missing_ok=True)
        self.job, self.wanted, self.whole = new_job_id(), list(wanted), {"out.txt": content}
        if site == BARE:
            self.whole["remote_program_exec.log"] = b"printed\n"

    def run(self, site: str) -> Said:
        words = (
            *("run", site, "slow", "--id", self.job, "--into", str(self.place / "got" / self.job)),
            *("--input", f"in.txt={self.place}/in.txt", "--output", "out.txt"),
        )
        return self.line.run(self.sites.environ(), *words)

    def published(self) -> dict[str, bytes]:
        """Return the files of the job that have got their names."""
        folder = self.place / "got" / self.job
        return {
            str(file.relative_to(folder)): file.read_bytes()
            for file in folder.rglob("*")
            if file.is_file() and not file.relative_to(folder).parts[0].endswith(".part")
        }

    def quiet(self) -> bool:
        """Say whether nothing goes on any more that was begun by whoever is dead."""
        return not any(Path(f"/proc/{pid}").exists() for pid in self.lines)

    def starts(self) -> int:
        return self.sites.house.site.witness.read_text().count(self.job)


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    with two_sites(tmp_path) as sites:
        yard, house = Yard(sites, Prompt(), tmp_path), sites.house
        place = sites.runtime / "door"
        program = shlex.join([sys.executable, "-I", turnstile.__file__, str(place)])
        gate = gate_line(house.site, house.key.with_suffix(".pub").read_text())
        plain = (house.server.place / "key.pub").read_text()
        house.server.authorize(
            gate.replace('command="', f'command="{program} ', 1), f'command="{program}" {plain}'
        )
        with (tmp_path / "slow.sh").open("a") as slow:
            slow.write("echo printed\n")
        with door(place, yard.heard):
            yield yard


# ---------------------------------------------------------------------------- who is killed


def named(yard: Yard) -> list[tuple[int, bytes, bytes]]:
    """Return this side's ssh and rsync processes: number, name, words."""
    mark, found = str(yard.sites.runtime).encode(), []
    for place in Path("/proc").iterdir():
        with suppress(OSError):
            words = (place / "cmdline").read_bytes() if place.name.isdigit() else b""
            if mark in words:
                found.append((int(place.name), (place / "comm").read_bytes().strip(), words))
    return sorted(found)


def client(yard: Yard, _: Moment) -> list[int]:
    assert yard.line.running
    return [yard.line.running.pid]


def ssh(yard: Yard, _: Moment) -> list[int]:
    """Return the ends of sessions here, not the connection that they share."""
    return [pid for pid, name, words in named(yard) if name == b"ssh" and b"ProxyCommand" in words]


def connection(yard: Yard, _: Moment) -> list[int]:
    return [pid for pid, name, words in named(yard) if name == b"ssh" and b"\0-M\0" in words]


def rsync(yard: Yard, _: Moment) -> list[int]:
    return [pid for pid, name, _ in named(yard) if name == b"rsync"]


def sshd(_: Yard, moment: Moment) -> list[int]:
    return [moment.sshd]


def far(_: Yard, moment: Moment) -> list[int]:
    """Return what sshd has started: a verb's shell, an rsync, a gate."""
    there = moment.child and Path(f"/proc/{moment.child}/fd/1").exists()
    return [moment.child if there else moment.turnstile]


def carrier(yard: Yard, _: Moment) -> list[int]:
    pid = yard.sites.house.site.carrier()
    return [] if pid is None else [pid]


VICTIMS: Mapping[str, Callable[[Yard, Moment], list[int]]] = {
    "client": client,
    "ssh": ssh,
    "connection": connection,
    "rsync": rsync,
    "sshd": sshd,
    "far": far,
    "carrier": carrier,
}
ROWS = [
    *((BARE, name) for name in ("client", "ssh", "connection", "rsync", "sshd", "far")),
    *((GATED, name) for name in ("client", "ssh", "connection", "sshd", "far", "carrier")),
]


def steps(site: str, victim: str, when: str) -> tuple[str, ...]:
    """Return the steps of a job at which ``victim`` can be killed."""
    if victim == "rsync" or when == "amid":
        return CARRIES[site]
    if victim == "carrier":  # there is one from the start on
        return STEPS[site][STEPS[site].index("start") + (when == "before") :]
    return STEPS[site]


@pytest.mark.parametrize(("site", "victim"), ROWS)
def test_whatever_is_killed_at_whichever_step_one_job_has_one_start_and_one_result(
    yard: Yard, site: str, victim: str
) -> None:
    """P3. Kills: a start that is made again because its answer was lost; half of a transfer."""
    yard.kill, yard.cuts = (lambda moment: VICTIMS[victim](yard, moment)), victim != "carrier"
    for when in ("before", "amid", "after"):
        yard.begin(site, [f"{when} {step}" for step in steps(site, victim, when)])
        said = yard.run(site)
        while said.status == -signal.SIGKILL:
            until(yard.quiet, "an end of all that the dead one has begun")
            said = yard.run(site)
        assert said.status == 0, (said, yard.wanted)
        assert yard.wanted == []
        assert yard.half == []
        assert yard.published() == yard.whole
        assert yard.starts() == 1


# ------------------------------------------------------------- disks under both ends of an rsync


class Failing:
    """Lets the nth write from now on of processes fail that are under way."""

    def __init__(self, nth: int) -> None:
        self.nth = nth
        self.tracers: list[subprocess.Popen[bytes]] = []

    def strike(self, pid: int) -> None:
        what = ("-e", "trace=write", "-e", f"inject=write:error=EIO:when={self.nth}")
        tracer = subprocess.Popen(["strace", "-p", str(pid), *what], stderr=subprocess.PIPE)
        self.tracers.append(tracer)
        assert tracer.stderr
        assert b"attached" in tracer.stderr.readline()

    def failed(self) -> list[bytes]:
        """Return the writes that failed, when the processes have ended."""
        lines = [tracer.communicate(timeout=120)[1].splitlines() for tracer in self.tracers]
        return [line for said in lines for line in said if b"INJECTED" in line]


def far_rsync(_: Yard, moment: Moment) -> list[int]:
    task = Path(f"/proc/{moment.child}/task/{moment.child}/children")
    return [moment.child, *map(int, task.read_text().split())]


@pytest.mark.parametrize("nth", [1, 4])
@pytest.mark.parametrize("step", ["push", "bring"])
def test_a_disk_that_fails_under_an_rsync_is_told_in_one_line_and_another_call_goes_on(
    yard: Yard, step: str, nth: int
) -> None:
    """Kills: a file with a hole where a write was lost, as an input or under a result's name."""
    failing = Failing(nth)
    yard.begin(BARE, [f"amid {step}"])
    yard.sites.house.site.go.touch()
    found = far_rsync if step == "push" else rsync  # who receives writes
    yard.kill, yard.strike = (lambda moment: found(yard, moment)), failing.strike
    first = yard.run(BARE)
    assert failing.failed() != []
    assert first.status == 0 or first.err.count("error[") == 1, first
    assert yard.published() in ({}, yard.whole)
    said = yard.run(BARE)
    assert said.status == 0, (first, said)
    assert yard.wanted == []
    assert yard.half == []
    assert yard.published() == yard.whole
    assert yard.starts() == 1
