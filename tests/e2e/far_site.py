"""A site on a gateway with a computing host behind it, for tests that take whole jobs there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.e2e.own_site import Hall, Place, a_hall
from tests.farhost import Far

GATE: Final = """
[[command]]
name = "gate"
host = "ssh:far"
scheduler = "SCHEDULER"
argv = ["/bin/sh", "-c", "echo run >> {gate}.count; cat {gate} > passed.txt"]
time_limit_s = 600
max_running = 50
[[command.output]]
path = "passed.txt"
"""


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


def a_far_site(
    hall: Hall, far: Far, config: Path, commands: str, *, room: Path | None = None, **settings: int
) -> FarSite:
    """Make a site whose commands may name `ssh:far`; ``config`` is the ssh configuration."""
    room = room or far.room()
    far.home.chmod(0o777)
    text = commands.replace("{gate}", str(far.home / "gate"))
    place = hall.joined(commands=text.replace("{", "{{").replace("}", "}}"))
    os.mkfifo(far.home / "gate")
    (far.home / "gate").chmod(0o666)
    usual = {"logins_per_minute": 600} | settings
    lines = [f'base = "{room}/jobs"', f'ssh_config = "{config}"']
    lines += [f"{key} = {value}" for key, value in usual.items()]
    file = place.home / "agent.toml"
    file.write_text("\n".join([file.read_text(), "[host.far]", *lines, ""]))
    return FarSite(place, far, room / "jobs")
