"""A gated and a bare site at one real sshd, and the settings of somebody who uses both."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sekisho.client.client import Client
from sekisho.client.spec import JobSpec
from sekisho.compose.client import client
from sekisho.compose.push import ssh_host
from sekisho.config.client import load_client
from tests.forked import Forked
from tests.gated import SITE as GATED
from tests.gated import GatedHouse, gated_house
from tests.sshd import put, remove

BARE = "far"
HOSTS = {GATED: "gate-host", BARE: "bare-host"}
_DOUBLE = "#!/bin/sh\ncat in.txt in.txt >out.txt; echo printed\n"


@dataclass
class TwoSites:
    """Both sites have the commands `double`, `slow`, `wait`, `noop` and `fail`."""

    house: GatedHouse
    place: Path
    runtime: Path
    way: Sequence[str] = ()  #: lines for both hosts in the user's ssh configuration, before others
    others: str = ""  #: more hosts of that configuration
    extra: Mapping[str, str] = field(default_factory=dict)  #: lines of the settings, by site
    logins_per_minute: int = 600
    hosts_named: bool = True  #: in the settings; else a hook names them

    @property
    def config(self) -> Path:
        return self.place / "client.toml"

    def settle(self) -> None:
        """Write the user's files."""
        way = "".join(f"  {line}\n" for line in self.way)
        server = self.house.server
        known = "HostKeyAlias far" if self.way else f"HostKeyAlias [127.0.0.1]:{server.port}"
        hosts = "".join(
            f"Host {name}\n{way}  {known}\n" + server.alias(name, key=key)
            for name, key in (("gate-host", self.house.key), ("bare-host", self.house.plain))
        )
        kind, key = (server.place / "host.pub").read_text().split()[:2]
        put(server.place / "known_hosts", f"far,[127.0.0.1]:{server.port} {kind} {key}\n")
        put(self.place / "ssh_config", hosts + self.others)
        usual = 'mode = "ssh"\nssh_config = "ssh_config"\n'
        usual += f"logins_per_minute = {self.logins_per_minute}\n"
        bare = f'kind = "bare"\nbase = "{self.place}/base"\n'
        named = {
            h: f'host = "{h}"\n' if self.hosts_named else "" for h in ("gate-host", "bare-host")
        }
        put(
            self.config,
            f"[site.{GATED}]\n{named['gate-host']}{usual}{self.extra.get(GATED, '')}\n"
            f"[site.{BARE}]\n{named['bare-host']}{usual}{bare}{self.extra.get(BARE, '')}\n"
            f'[site.{BARE}.program]\ndouble = ["{self.place}/double.sh"]\n'
            f'wait = ["/bin/sh", "{self.place}/wait.sh"]\nnoop = ["/bin/true"]\n'
            f'slow = ["/bin/sh", "{self.place}/slow.sh"]\n'
            f'fail = ["/bin/sh", "-c", "echo why; exit 4"]\n',
        )

    def environ(self, state: str = "state") -> dict[str, str]:
        mine = {
            "XDG_STATE_HOME": str(self.place / state),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "SEKISHO_CONFIG": str(self.config),
            "LC_ALL": "C.UTF-8",
        }
        return {**os.environ, **mine}

    @contextmanager
    def client(self, state: str = "state") -> Iterator[Client]:
        """Give a client of this process."""
        self.settle()
        before = dict(os.environ)
        os.environ.update(self.environ(state))
        try:
            with client(self.config) as here:
                yield here
        finally:
            os.environ.clear()
            os.environ.update(before)

    def sekisho(self, *words: str, state: str = "state") -> Forked:
        """Start the command line as a user would."""
        self.settle()
        pipe = subprocess.PIPE
        return Forked(words, env=self.environ(state), stdout=pipe, stderr=pipe, cwd=self.place)

    def disconnect(self) -> None:
        """End both connections, for every process."""
        before = os.environ.get("XDG_RUNTIME_DIR")
        os.environ["XDG_RUNTIME_DIR"] = str(self.runtime)
        try:
            files = load_client(self.config)
            for name, site in files.settings.site.items():
                ssh_host(site, files, HOSTS[name]).disconnect()
        finally:
            if before is None:
                del os.environ["XDG_RUNTIME_DIR"]
            else:
                os.environ["XDG_RUNTIME_DIR"] = before


def a_slow(place: Path, site: str, content: bytes) -> JobSpec:
    """Return a job that gives ``content`` back when it may go on."""
    source = place / "in.txt"
    source.write_bytes(content)
    return JobSpec(site=site, command="slow", inputs={"in.txt": source}, outputs=["out.txt"])


def a_double(place: Path, site: str, content: bytes = b"x\n") -> JobSpec:
    """Return a job that doubles ``content``."""
    source = place / "in.txt"
    source.write_bytes(content)
    return JobSpec(site=site, command="double", inputs={"in.txt": source}, outputs=["out.txt"])


@contextmanager
def two_sites(
    place: Path, *, lines: Sequence[str] = (), within: Sequence[str] = ()
) -> Iterator[TwoSites]:
    runtime = Path(tempfile.mkdtemp(prefix="sk-"))  # short: sockets are below
    try:
        with gated_house(place, lines=lines, within=within) as house:
            (place / "double.sh").write_text(_DOUBLE)
            (place / "double.sh").chmod(0o755)
            sites = TwoSites(house, place, runtime)
            sites.settle()
            try:
                yield sites
            finally:
                sites.disconnect()
    finally:
        remove(runtime)
