"""A site on a gateway with a computing host behind it, for tests that take whole jobs there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.e2e.own_site import Hall, Place, a_hall
from tests.farhost import Far, far_host

_GATE: Final = """
[[command]]
name = "gate"
host = "ssh:far"
scheduler = "{scheduler}"
argv = ["/bin/sh", "-c", "echo run >> {gate}.count; cat {gate} > passed.txt"]
time_limit_s = 600
max_running = 50
[[command.output]]
path = "passed.txt"
"""


def a_gate(scheduler: str = "local") -> str:
    """Return the command `gate`, which waits until a test writes into the gate."""
    return _GATE.replace("{scheduler}", scheduler)


@dataclass
class FarSite:
    """A site on a gateway, and its computing host."""

    place: Place
    far: Far
    base: Path

    @property
    def user(self) -> str:
        return self.far.server.user

    @property
    def results(self) -> Path:
        return self.place.home.with_suffix(".results")

    def gate(self, suffix: str = "") -> Path:
        return self.far.home / f"gate{suffix}"

    def lines(self, suffix: str) -> list[str]:
        file = self.gate(suffix)
        return file.read_text().splitlines() if file.exists() else []


@contextmanager
def an_open_hall(home: Path) -> Iterator[Hall]:
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8"}
    environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    with a_hall(home, environ) as made:
        yield made


def host_far(place: Path, base: Path, lines: str = "") -> str:
    """Return an agent's settings for a host `far` that `far_host` made at ``place``."""
    way = f'base = "{base}"\nssh_config = "{place / "ssh_config"}"\n'
    return f"\n[host.far]\n{way}{lines or 'logins_per_minute = 600'}\n"


@contextmanager
def a_far_site(
    place: Path, commands: str, hall: Hall | None = None, *, lines: str = "", **host: Any
) -> Iterator[FarSite]:
    """Give a site whose commands may name `ssh:far`, in ``hall`` or in one of its own.

    ``lines`` are more settings of the host; the rest says what it is like: see `far_host`. If its
    disk is small, jobs lie there.
    """
    with ExitStack() as stack:
        far = stack.enter_context(far_host(place, **host))
        if hall is None:
            (place / "hall").mkdir()
            hall = stack.enter_context(an_open_hall(place / "hall"))
        room = far.home / "disk" if "disk_bytes" in host else far.room()
        far.home.chmod(0o777)
        text = commands.replace("{gate}", str(far.home / "gate"))
        joined = hall.joined(commands=text.replace("{", "{{").replace("}", "}}"))
        os.mkfifo(far.home / "gate")
        (far.home / "gate").chmod(0o666)
        with (joined.home / "agent.toml").open("a") as settings:
            settings.write(host_far(place, room / "jobs", lines))
        yield FarSite(joined, far, room / "jobs")
