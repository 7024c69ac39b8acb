"""A bare and a gated site behind one sshd of this machine, and what their processes compute."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sekisho.adapters.gate_keys import line_for
from sekisho.client.client import Client
from sekisho.compose.client import client
from sekisho.compose.push import ssh_host
from sekisho.config.client import load_client
from tests.sshd import Sshd, make_key, remove, serving
from tests.wire import Wire, wire

KINDS: Final = ("bare", "gated")
SIDES: Final = ("client", "ssh and rsync", "sshd and rsync", "gate", "carrier")
_TICKS: Final = os.sysconf("SC_CLK_TCK")

_MANIFEST: Final = """\
schema = 1
site = "gated"
submitters = ["bench"]

[[command]]
name = "noop"
argv = ["/bin/true"]
time_limit_s = 600
[[command.input]]
path = "*.inp"
max_bytes = "1 TiB"
required = false

[[command]]
name = "give"
argv = ["/bin/mv", "{ready}", "big.out"]
time_limit_s = 600
[[command.output]]
path = "big.out"
max_bytes = "1 TiB"
"""
_SITE: Final = """\
[site.{kind}]
mode = "ssh"
kind = "{kind}"
host = "{host}"
ssh_config = "ssh_config"
logins_per_minute = 600
"""
_PROGRAMS: Final = """\
base = "{place}/base"
[site.bare.program]
noop = ["{place}/noop.sh"]
give = ["{place}/give.sh"]
"""


@dataclass(frozen=True, slots=True)
class PushWorld:
    """Both sites. The command ``give`` returns what lies ``ready``, at no cost of its own.

    The sites that are ``far`` are the same ones, through a line that counts, or that is slow.
    """

    place: Path
    server: Sshd
    line: Wire
    gate_key: Path

    @property
    def ready(self) -> Path:
        return self.place / "ready"

    def config(self, *, far: bool = False) -> Path:
        return self.place / ("far.toml" if far else "client.toml")

    @property
    def ssh_config(self) -> Path:
        return self.place / "ssh_config"

    def settle(self) -> None:
        """Make the sites and write the client's settings."""
        site = self.place / "site"
        site.mkdir(mode=0o700)
        (site / "manifest.toml").write_text(_MANIFEST.format(ready=self.ready))
        (site / "agent.toml").write_text('[broker]\nurl = "https://broker.invalid"\n')
        key = self.gate_key.with_suffix(".pub").read_text()
        line = line_for(key, home=site, submitter="bench", sources=None, expires=None)
        self.server.authorize(line, (self.server.place / "key.pub").read_text())
        for name, text in (("noop", "true"), ("give", f"mv {self.ready} big.out")):
            program = self.place / f"{name}.sh"
            program.write_text(f"#!/bin/sh\n{text}\n")
            program.chmod(0o755)
        self.config().write_text("".join(_site(kind, kind, self.place) for kind in KINDS))
        far = [_site(kind, f"{kind}-far", self.place) for kind in KINDS]
        self.config(far=True).write_text("".join(far))
        self.lead_far(self.line.port)

    def lead_far(self, port: int) -> None:
        """Let the far sites' hosts lead to ``port``; a connection that is open stays as it is."""
        host = f"[127.0.0.1]:{self.server.port}"
        text = ""
        for kind, key in (("bare", None), ("gated", self.gate_key)):
            text += self.server.alias(kind, key=key)
            far = self.server.alias(f"{kind}-far", key=key, extra=[f"HostKeyAlias {host}"])
            text += far.replace(f"Port {self.server.port}\n", f"Port {port}\n")
        self.ssh_config.write_text(text)

    def client(self, *, far: bool = False) -> Client:
        return client(self.config(far=far))

    def disconnect(self) -> None:
        """End the shared connections."""
        for far in (False, True):
            files = load_client(self.config(far=far))
            for site in files.settings.site.values():
                ssh_host(site, files, site.host).disconnect()

    def carrier(self) -> int | None:
        """Return the process that carries the gated site's jobs."""
        lock = self.place / "site" / "state" / "push" / "carrier.lock"
        words = lock.read_text().strip() if lock.exists() else ""
        return int(words) if words.isdigit() and Path(f"/proc/{words}").exists() else None

    def end_carrier(self) -> None:
        """End the carrier, which waits for another job: its files are about to be removed."""
        while (pid := self.carrier()) is not None and b"sekisho" in _read(pid, "cmdline"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    def cpu_seconds(self) -> dict[str, float]:
        """Return what each of `SIDES` has computed so far, and those that it has seen end."""
        spent = dict.fromkeys(SIDES, 0.0)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent["client"] = time.process_time()
        spent["ssh and rsync"] = used.ru_utime + used.ru_stime
        for pid in _pids():
            if _name(pid) == "ssh" and str(self.place).encode() in _read(pid, "cmdline"):
                spent["ssh and rsync"] += _cpu_seconds(pid)
        if self.server.process is not None:
            spent["sshd and rsync"] += _cpu_seconds(self.server.process.pid)
        for pid in self.server.children():
            spent["gate" if "python" in _name(pid) else "sshd and rsync"] += _cpu_seconds(pid)
        if (carrier := self.carrier()) is not None:  # begun by a gate, and among its children
            spent["carrier"] = _cpu_seconds(carrier)
            spent["gate"] -= spent["carrier"] if carrier in self.server.children() else 0.0
        return spent

    def peak_mib(self) -> dict[str, float]:
        """Return the most memory that each of our living processes has held."""
        carrier = self.carrier()
        ours = [pid for pid in self.server.children() if "python" in _name(pid)]
        gates = [pid for pid in ours if pid != carrier]
        return {
            "client": _peak_mib(os.getpid()),
            "gate": max(map(_peak_mib, gates), default=0.0),
            "carrier": 0.0 if carrier is None else _peak_mib(carrier),
        }


def _site(kind: str, host: str, place: Path) -> str:
    rest = _PROGRAMS.format(place=place) if kind == "bare" else ""
    return _SITE.format(kind=kind, host=host) + rest


@contextmanager
def push_world(place: Path) -> Iterator[PushWorld]:
    """Give both sites below ``place``, and this process the environment of their submitter."""
    with ExitStack() as stack:
        runtime = Path(tempfile.mkdtemp(prefix="sk-"))  # short: sockets are below
        stack.callback(remove, runtime)
        os.environ["XDG_RUNTIME_DIR"] = str(runtime)
        os.environ["XDG_STATE_HOME"] = str(place / "state")
        server = stack.enter_context(serving(place / "sshd"))
        line = stack.enter_context(wire(server.port))
        world = PushWorld(place, server, line, make_key(place / "gate_key"))
        world.settle()
        stack.callback(world.end_carrier)
        stack.callback(world.disconnect)
        yield world


@contextmanager
def shaped(port: int, mbit: float, round_trip_ms: float) -> Iterator[int]:
    """Give the port of a line to ``port`` with this rate and round trip."""
    argv = [sys.executable, "-m", "bench.shaping", str(port), str(mbit), str(round_trip_ms)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if process.stdout is None:
            raise ValueError(process)
        yield int(process.stdout.readline())
        process.terminate()


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _name(pid: int) -> str:
    return _read(pid, "comm").decode("utf-8", "replace").strip()


def _cpu_seconds(pid: int) -> float:
    words = _read(pid, "stat").rpartition(b")")[2].split()
    return sum(map(int, words[11:15])) / _TICKS


def _peak_mib(pid: int) -> float:
    lines = _read(pid, "status").decode("ascii", "replace").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
