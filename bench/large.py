"""A huge file through a plain nginx, over a wire that is cut ten times each way."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.process import BenchFault
from bench.report import note
from tests.cutter import Cutter, cutter
from tests.nginx import nginx

if TYPE_CHECKING:
    from bench.transfer import Bench

_MIB: Final = 1 << 20
_GIB: Final = 1 << 30
_CUTS: Final = 10
_PIECES: Final = 8


def mixed(file: Path, size: int) -> int:
    """Make a file of ``size`` bytes, half of it noise in pieces, half holes; return the noise."""
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = size // (2 * _PIECES) // _MIB
    with file.open("wb") as opened:
        for number in range(_PIECES):
            opened.seek(number * (size // _PIECES))
            for _ in range(noise):
                opened.write(os.urandom(_MIB))
        opened.truncate(size)
    return noise * _MIB * _PIECES


def large(bench: Bench, gib: int) -> None:
    """Send such a file and bring another one back; tell what was sent for what was needed."""
    here = bench.here
    with nginx(here.root / "nginx", here.port, scheme="https", path="/") as port:
        for way, command in (("down", "give"), ("up", "take")):
            note(f"{gib} GiB, half of it holes, through nginx, cut {_CUTS} times: {command}")
            source = here.user_dir / "mixed" if way == "up" else None
            place = source or bench.prepared
            shutil.rmtree(place, ignore_errors=True)
            noise = mixed(place / "data", gib * _GIB)
            cuts = [(n + 1) * noise // (_CUTS + 1) for n in range(_CUTS)]
            with cutter(port, cuts if way == "up" else [], cuts if way == "down" else []) as wire:
                done = bench.job(command, source, _settings(bench, wire))
            if wire.cuts != _CUTS:
                raise BenchFault(f"{wire.cuts} cuts")
            ratio = (wire.up if way == "up" else wire.down) / noise
            bench.figures[f"large_{command}_bytes_ratio"] = ratio
            rate = noise / done.total_s / _MIB
            bench.table.add(f"{gib} GiB, {command}", f"{rate:.0f} MiB/s", "", f"{ratio:.4f} sent")
            shutil.rmtree(place, ignore_errors=True)  # one of them was moved away
            for left in (here.site_dir / "work").iterdir():  # a disk holds six such files, not nine
                shutil.rmtree(left)


def _settings(bench: Bench, wire: Cutter) -> Path:
    """Return settings that lead a client over ``wire``."""
    here = bench.here
    home = here.root / "over-wire"
    home.mkdir(exist_ok=True)
    text = here.config.read_text("utf-8").replace(str(here.port), str(wire.port))
    (home / "client.toml").write_text(text.replace(str(here.user_dir), str(home)), "utf-8")
    shutil.copy(here.user_dir / "token", home)
    shutil.copy(here.root / "nginx" / "broker-ca.pem", home)
    return home / "client.toml"
