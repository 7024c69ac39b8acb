"""A gated site under an ordinary user, at root's sshd and at an sshd that the user runs.

When root runs the tests, the user is another one, who may not even see this Python: it is shown
to the server, and to nobody else, where the user can reach it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import sekisho
from sekisho.adapters.hosts.ssh import SshAddress
from sekisho.client.client import Client
from sekisho.client.spec import JobSpec
from sekisho.domain.job import JobState
from tests.gated import GatedSite, gate_lane, gate_line, gated_site
from tests.sshd import Sshd, connected_as, make_key, ordinary_user, serving
from tests.waiting import until

ROOT = os.geteuid() == 0


@dataclass
class Home:
    """What belongs to the user, where the user can reach it."""

    place: Path
    user: str

    def give(self, *places: Path) -> None:
        """Make the user the owner of all that is there."""
        if ROOT:
            subprocess.run(["chown", "-R", self.user, *map(str, places)], check=True)

    @property
    def python(self) -> Path:
        return self.place / "venv" / "bin" / "python" if ROOT else Path(sys.executable)

    def show_python(self, *then: str) -> list[str]:
        """Return the beginning of a command line that sees ``python``, then ``then``.

        What it sees is read-only, and nobody outside of it sees any of it.
        """
        if not ROOT:
            return []
        base = Path(sys.base_prefix)
        shown = {
            "base": base,
            "packages": Path(sysconfig.get_path("purelib")),
            "source": Path(sekisho.__file__).parents[1],
        }
        steps = [f"mount -o bind,ro '{there}' '{self.place}/{n}'" for n, there in shown.items()]
        closed = next((p for p in reversed(base.parents) if not p.stat().st_mode & 0o001), None)
        if closed is not None:  # the same place again, in a folder that is open
            steps += [f"mount -t tmpfs -o mode=755 none '{closed}'", f"mkdir -p '{base}'"]
            steps += [f"mount -o bind,ro '{self.place}/base' '{base}'"]
        for name in shown:
            (self.place / name).mkdir()
        self._make_environment(base)
        return ["unshare", "--mount", "sh", "-c", " && ".join([*steps, 'exec "$@"']), "sh", *then]

    def _make_environment(self, base: Path) -> None:
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        packages = self.place / "venv" / "lib" / version / "site-packages"
        packages.mkdir(parents=True)
        (packages / "all.pth").write_text(f"{self.place}/packages\n{self.place}/source\n")
        (self.place / "venv" / "pyvenv.cfg").write_text(f"home = {base}/bin\n")
        self.python.parent.mkdir()
        self.python.symlink_to(base / "bin" / version)


@dataclass
class Served:
    """A gated site of the user's, behind a server."""

    site: GatedSite
    server: Sshd
    key: Path


@pytest.fixture
def home() -> Iterator[Home]:
    place = Path(tempfile.mkdtemp(prefix="sk-home-"))
    place.chmod(0o755)
    yield Home(place, ordinary_user())
    shutil.rmtree(place)


@contextmanager
def served(home: Home, *, by_user: bool) -> Iterator[Served]:
    site = gated_site(home.place)
    person = pwd.getpwnam(home.user)
    become = ["setpriv", f"--reuid={person.pw_uid}", f"--regid={person.pw_gid}", "--clear-groups"]
    within = home.show_python(*(become if by_user else []))
    key = make_key(home.place / "gate_key")
    home.give(home.place)
    at_place = home.place / "sshd"
    with serving(at_place, user=home.user, within=within, before=home.give) as server:
        line = gate_line(site, key.with_suffix(".pub").read_text())
        server.authorize(line.replace(sys.executable, str(home.python)))
        try:
            yield Served(site, server, key)
        finally:
            site.go.touch()
            site.kill_carrier()


@pytest.mark.parametrize("by_user", [False, True], ids=["root's sshd", "the user's own sshd"])
def test_an_ordinary_user_has_a_gated_site(home: Home, tmp_path: Path, by_user: bool) -> None:
    source = tmp_path / "in.txt"
    source.write_bytes(os.urandom(3_000_000))
    with served(home, by_user=by_user) as far:
        config = tmp_path / "ssh_config"
        config.write_text(far.server.alias("far", key=far.key))
        address = SshAddress(host="far", config_file=config, logins_per_minute=600)
        with connected_as(address) as host:
            client = Client(gate_lane(host))
            spec = JobSpec(
                site="kobe", command="double", inputs={"in.txt": source}, outputs=["out.txt"]
            )
            result = client.submit(spec).result(tmp_path / "r")
            assert result.state == JobState.SUCCEEDED
            assert (tmp_path / "r" / "out.txt").read_bytes() == source.read_bytes() * 2
            held = client.submit(JobSpec(site="kobe", command="wait"))
            until(lambda: far.site.starts() == 1)
            assert {owner(Path(f"/proc/{far.site.carrier()}")), *owners(far.site.home)} == {
                home.user
            }
            far.server.cut()
            held.cancel()
            assert held.wait(60).state == JobState.CANCELLED
            refused = host.run(["id"])
            assert refused.stdout == b""
            client.close()


def owners(place: Path) -> set[str]:
    return {owner(found) for found in (place, *place.rglob("*"))}


def owner(place: Path) -> str:
    return pwd.getpwuid(place.lstat().st_uid).pw_name
