"""A gated site for tests: its directory, its key at a real sshd, and a submitter's way through."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from sekisho.adapters.gate_keys import line_for
from sekisho.adapters.hosts.ssh import SshAddress, SshHost
from sekisho.adapters.lane_gate import KNOCK, GateLane
from sekisho.adapters.patience import Patience
from sekisho.client.client import Client
from sekisho.domain.errors import SekishoError
from tests.forked import GATE, Forked
from tests.sshd import Sshd, connected_as, make_key, serving

SITE = "kobe"
USER = "alice"
OTHER = "bob"

MANIFEST = """\
schema = 1
site = "kobe"
submitters = ["alice", "bob"]
max_running = 8

[[command]]
name = "noop"
argv = ["/bin/true"]
time_limit_s = 60
max_running = 8

[[command]]
name = "double"
argv = ["/bin/sh", "-c", "cat in.txt in.txt > out.txt; echo printed; cp out.txt secret.txt"]
time_limit_s = 60
max_running = 8
[[command.input]]
path = "in.txt"
max_bytes = "64 MiB"
[[command.output]]
path = "out.txt"
max_bytes = "128 MiB"

[[command]]
name = "witnessed"
argv = ["/bin/sh", "-c", "echo $CALC_DIR >> @witness@; cat in.txt in.txt > out.txt"]
time_limit_s = 60
max_running = 8
[[command.input]]
path = "in.txt"
[[command.output]]
path = "out.txt"

[[command]]
name = "slow"
argv = ["/bin/sh", "{slow}"]
time_limit_s = 600
max_running = 8
[[command.input]]
path = "in.txt"
max_bytes = "256 MiB"
[[command.output]]
path = "out.txt"
max_bytes = "256 MiB"

[[command]]
name = "fail"
argv = ["/bin/sh", "-c", "echo why; exit 4"]
time_limit_s = 60
max_running = 8

[[command]]
name = "shown"
argv = ["/bin/sh", "-c", "echo 1,2 > life.csv; echo 41 > done; echo mesh > mesh; sh {script}"]
time_limit_s = 120
[command.publish]
every_s = 2
progress = "done"
[[command.publish.file]]
path = "life.csv"
[[command.output]]
path = "*.txt"

[[command]]
name = "wait"
argv = ["/bin/sh", "{script}"]
time_limit_s = 120
max_running = 8
[[command.output]]
path = "out.txt"
"""

WAIT = """\
echo $CALC_DIR >> {witness}
while [ ! -e {go} ]; do sleep 0.05; done
"""


@dataclass(frozen=True, slots=True)
class GatedSite:
    """The site's side."""

    home: Path
    witness: Path
    go: Path

    @property
    def push(self) -> Path:
        return self.home / "state" / "push"

    def starts(self) -> int:
        """How many commands have begun, as they themselves say."""
        return len(self.witness.read_text().splitlines()) if self.witness.exists() else 0

    def carrier(self) -> int | None:
        """The carrier's process, as its lock file names it, if it lives."""
        file = self.push / "carrier.lock"
        words = file.read_text().strip() if file.exists() else ""
        return int(words) if words and Path(f"/proc/{words}").exists() else None

    def kill_carrier(self) -> bool:
        pid = self.carrier()
        if pid is None:
            return False
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return True


def gated_site(place: Path) -> GatedSite:
    """Make a site's directory; nothing runs there yet."""
    home = place / "site"
    home.mkdir(mode=0o700)
    site = GatedSite(home, place / "witness", place / "go")
    wait = WAIT.replace("{witness}", str(site.witness)).replace("{go}", str(site.go))
    script, slow = place / "wait.sh", place / "slow.sh"
    script.write_text(f"#!/bin/sh\n{wait}echo done > out.txt\n")
    slow.write_text(f"#!/bin/sh\n{wait}cp in.txt out.txt\n")
    text = MANIFEST.replace("{script}", str(script)).replace("{slow}", str(slow))
    text = text.replace("@witness@", str(site.witness))
    (home / "manifest.toml").write_text(text)
    (home / "agent.toml").write_text('[broker]\nurl = "https://broker.invalid"\n')
    return site


@dataclass
class GatedHouse:
    """A gated site behind a real sshd. ``key`` opens its gate for alice, ``plain`` a shell."""

    site: GatedSite
    server: Sshd
    key: Path
    plain: Path
    others: Path

    def host(self, place: Path, key: Path | None = None) -> SshAddress:
        file = place / f"ssh_config.{(key or self.key).name}"
        file.write_text(self.server.alias("far", key=key or self.key))
        return SshAddress(host="far", config_file=file, logins_per_minute=600)


@contextmanager
def gated_house(
    place: Path, *, lines: Sequence[str] = (), within: Sequence[str] = ()
) -> Iterator[GatedHouse]:
    site = gated_site(place)
    with serving(place / "sshd", lines=lines, within=within) as server:
        key, others = make_key(place / "gate_key"), make_key(place / "others_key")
        lines = [
            gate_line(site, found.with_suffix(".pub").read_text(), user)
            for found, user in ((key, USER), (others, OTHER))
        ]
        server.authorize(*lines, (server.place / "key.pub").read_text())
        try:
            yield GatedHouse(site, server, key, server.place / "key", others)
        finally:
            site.go.touch()
            site.kill_carrier()


def gate_line(site: GatedSite, key: str, user: str = USER) -> str:
    """Return the line that lets a public key open the gate for ``user``."""
    return line_for(key, home=site.home, submitter=user, sources=None, expires=None)


@contextmanager
def gate_client(house: GatedHouse, place: Path, key: Path | None = None) -> Iterator[Client]:
    """Give a client whose only lane is the gate."""
    with connected_as(house.host(place, key)) as host:
        client = Client(gate_lane(host))
        try:
            yield client
        finally:
            client.close()


def gate_lane(host: SshHost) -> GateLane:
    patience = Patience(limit_s=600, wait=lambda s: threading.Event().wait(min(s, 0.2)))
    return GateLane(SITE, partial(host.session, KNOCK), patience)


@dataclass
class Local:
    """A gate without an ssh around it."""

    stdin: IO[bytes]
    stdout: IO[bytes]
    process: Forked

    def fault(self) -> SekishoError | None:
        return None

    def close(self) -> None:
        for stream in (self.stdin, self.stdout):
            with suppress(OSError):
                stream.close()
        self.process.wait(20)


def local_gate(
    home: Path,
    user: str = USER,
    first: str = "",
    environ: Mapping[str, str] = {},
) -> Local:
    """Open the gate of the site in ``home`` as a session; see `Forked`."""
    process = gate_process(home, user, first, environ)
    assert process.stdin
    assert process.stdout
    return Local(process.stdin, process.stdout, process)


def gate_process(
    home: Path,
    user: str = USER,
    first: str = "",
    environ: Mapping[str, str] = {},
) -> Forked:
    """Start the gate as sshd would, with its streams in our hands; see `Forked`."""
    return Forked(
        ["--dir", home, "--submitter", user],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=False,
        env=environ,
        program=GATE,
        first=first,
    )
