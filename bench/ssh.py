"""What push mode costs beside plain ssh and rsync, in the same run: `./dev bench ssh`.

A real sshd on this machine, a bare site on it. Every figure of ours has the plain tool's beside it:
`ssh host true` with a new and with a shared connection, `rsync -a` of the same files.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.report import Figure, Table, conclude
from sekisho.client.client import Client
from sekisho.client.spec import JobSpec
from tests.bare_site import SITE, BareWorld, bare_world

_MIB: Final = 1 << 20
_PIECE: Final = os.urandom(_MIB)


def _seconds(act: Callable[[], object]) -> float:
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def _median(number: int, act: Callable[[], object]) -> float:
    return statistics.median(_seconds(act) for _ in range(number))


def _plain(world: BareWorld, *words: str) -> None:
    """Run `ssh host true` as anybody would: with the user's own settings and a new login."""
    config = str(world.place / "ssh_config")
    subprocess.run(["ssh", "-F", config, *words, SITE, "true"], check=True)


def _rsync(world: BareWorld, source: str, target: str) -> None:
    shell = f"ssh -F {world.place / 'ssh_config'}"
    subprocess.run(["rsync", "-a", "-e", shell, source, target], check=True)


def _big(file: Path, mib: int) -> Path:
    with file.open("wb") as stream:
        for n in range(mib):
            stream.write(n.to_bytes(8) + _PIECE[8:])
    return file


def _one(client: Client, into: Path, command: str, *inputs: Path) -> None:
    client.submit(JobSpec(site=SITE, command=command, inputs=list(inputs))).result(into)


def _starts(world: BareWorld, samples: int) -> dict[str, Figure]:
    shared = ("-o", "ControlMaster=auto", "-o", f"ControlPath={world.runtime}/plain")
    keep = (*shared, "-o", "ControlPersist=60")
    figures: dict[str, Figure] = {"ssh_true_new_ms": 1000 * _median(5, lambda: _plain(world))}
    _plain(world, *keep)
    figures["ssh_true_warm_ms"] = 1000 * _median(samples, lambda: _plain(world, *shared))
    with world.client() as client:
        into = world.place / "noop"
        figures["noop_first_ms"] = 1000 * _seconds(lambda: _one(client, into, "noop"))
        figures["noop_warm_ms"] = 1000 * _median(samples, lambda: _one(client, into, "noop"))
    return figures


def _transfers(world: BareWorld, mib: int) -> dict[str, Figure]:
    big = _big(world.place / "big.inp", mib)
    far = world.place / "plain"
    far.mkdir()
    plain_in = _seconds(lambda: _rsync(world, str(big), f"{SITE}:{far}/"))
    plain_out = _seconds(lambda: _rsync(world, f"{SITE}:{far}/big.inp", str(world.place / "back")))
    world.program("give", f"ln {far}/big.inp big.out")
    with world.client() as client:
        into = world.place / "result"
        noop = _median(3, lambda: _one(client, into, "noop"))
        ours_in = _seconds(lambda: _one(client, into, "noop", big)) - noop
        ours_out = _seconds(lambda: _one(client, into, "give")) - noop
        changed = _changed(world, client, big)
    return {
        "in_ratio_rsync": plain_in / ours_in,
        "out_ratio_rsync": plain_out / ours_out,
        "changed_1pct_bytes_ratio": changed,
    }


def _changed(world: BareWorld, client: Client, big: Path) -> float:
    """Return our bytes on the wire for 1 % changed, by those of rsync over its own earlier copy."""
    with big.open("r+b") as stream:
        stream.seek(big.stat().st_size // 2)
        stream.write(os.urandom(max(1, big.stat().st_size // 100)))
    before = world.line.out
    _rsync(world, str(big), f"{SITE}:{world.place / 'plain'}/")
    plain = world.line.out - before
    before = world.line.out
    _one(client, world.place / "result", "noop", big)
    return (world.line.out - before) / plain


def main() -> int:
    """Run the benchmark."""
    line = argparse.ArgumentParser(prog="./dev bench ssh", allow_abbrev=False)
    line.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    line.add_argument("--mib", type=int, default=1024, metavar="N", help="size of the transfers")
    line.add_argument("--samples", type=int, default=20, metavar="N")
    given = line.parse_args()
    place = Path(tempfile.mkdtemp(prefix="sekisho-bench-", dir="/var/tmp"))
    table = Table("figure", "value")
    try:
        with bare_world(place) as world:
            world.program("noop", "true")
            figures = _starts(world, given.samples) | _transfers(world, given.mib)
    finally:
        shutil.rmtree(place)
    for name, value in figures.items():
        table.add(name, f"{value:.2f}")
    conclude(table, figures, as_json=given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
