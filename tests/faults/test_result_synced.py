"""Results get their names when they are on disk, not before, however many there are."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sekisho.transfer.flush import at_once

FETCH = """
import sys
from pathlib import Path
from sekisho.adapters.chunks_memory import MemoryChunks
from sekisho.transfer.fetch import fetch_tree
from sekisho.transfer.send import send_tree
from sekisho.transfer.source import LocalTree, scan
local, port = LocalTree(scan([("", Path(sys.argv[1]))])), MemoryChunks()
ref = send_tree(local.tree, local.read, port)
fetch_tree(ref, port, Path(sys.argv[2]))
"""
CALLS = "trace=pwrite64,fsync,syncfs,rename,renameat,renameat2"
FEW, MANY = 5, 300


@pytest.mark.parametrize("count", [FEW, MANY])
def test_names_are_given_to_what_is_on_disk_and_are_on_disk_themselves(
    tmp_path: Path, count: int
) -> None:
    """Kills: a name for a file that nobody synced; an end without a sync of the folders."""
    here, there, trace = tmp_path / "here", tmp_path / "there", tmp_path / "trace"
    for number in range(count):
        folder = here / str(number % 100)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / str(number)).write_bytes(b"%d" % number)
    tracer = ("strace", "-f", "-qq", "-y", "-o", str(trace), "-e", CALLS)
    argv = (*tracer, sys.executable, "-c", FETCH, str(here), str(there))
    subprocess.run(argv, check=True, timeout=120)
    told = [line.split(maxsplit=1)[1] for line in trace.read_text("utf-8").splitlines()]
    calls = [line for line in told if str(there) in line]
    named = [n for n, line in enumerate(calls) if line.startswith("rename")]
    written = [n for n, line in enumerate(calls) if line.startswith("pwrite64")]
    assert (len(named), len(written)) == (count, count)
    assert max(written) < min(named)
    assert _synced(calls[max(written) : min(named)]) >= count
    assert _synced(calls[max(named) :]) > 0
    assert any(line.startswith("syncfs") for line in calls) == _at_once(tmp_path, count)


def _synced(calls: list[str]) -> float:
    """Return how many things are on disk after ``calls``; of a failed one nobody went on."""
    if any(line.startswith("syncfs") for line in calls):
        return float("inf")
    return len({found[1] for line in calls if (found := re.match(r"fsync\(\d+<(.*?)>", line))})


def _at_once(place: Path, count: int) -> bool:
    with (place / "trace").open("rb") as file:
        return at_once(file.fileno(), count)


def test_one_call_stands_for_many_syncs_on_known_file_systems_only(tmp_path: Path) -> None:
    """Kills: one call on a file system of which nobody knows what it does then."""
    with Path("/proc/self/status").open("rb") as file:
        assert not at_once(file.fileno(), MANY)
    with (tmp_path / "file").open("wb") as file:
        assert not at_once(file.fileno(), FEW)
