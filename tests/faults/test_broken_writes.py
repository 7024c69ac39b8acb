"""Each step of writing inputs, results and the copy of outputs fails once: EIO, or no room.

The system call itself is made to fail (strace), in a process of its own. One clear error is told,
no file with a name is ever half, and the same call without the fault brings everything.
"""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sekisho.adapters.chunks_memory import MemoryChunks
from sekisho.adapters.workplace_local import LocalWorkplace
from sekisho.domain.errors import StorageFull
from sekisho.transfer.fetch import fetch_tree
from sekisho.transfer.send import send_tree
from sekisho.transfer.source import LocalTree, scan

JOB = "job_" + "0" * 26
PREFACE = """
import json, sys
from pathlib import Path
from sekisho.adapters.chunks_memory import MemoryChunks
from sekisho.adapters.workplace_local import LocalWorkplace
from sekisho.domain.errors import SekishoError
from sekisho.transfer.fetch import fetch_tree, fetch_files
from sekisho.transfer.send import send_tree
from sekisho.transfer.source import LocalTree, scan
here, there = map(Path, sys.argv[1:])
"""
FETCH = """
local, port = LocalTree(scan([("", here)])), MemoryChunks()
send_tree(local.tree, local.read, port)
try:
    fetch_files(local.tree, port, there, lasting=LASTING)
except SekishoError as error:
    print(json.dumps(error.code))
else:
    print(json.dumps(None))
"""
STAGE = """
workplace = LocalWorkplace(there, settle_s=0, spare_bytes=0)
place = workplace.place("JOB", 1)
try:
    staged = workplace.stage(place, workplace.collect(place).found, None)
    assert not staged.faults, staged.faults
    for chunk in staged.tree.chunks():
        staged.read(chunk)
except SekishoError as error:
    print(json.dumps(error.code))
else:
    print(json.dumps(None))
"""
PROGRAMS = {
    "results": FETCH.replace("LASTING", "True"),
    "inputs": FETCH.replace("LASTING", "False"),
    "outputs": STAGE.replace("JOB", JOB),
}
WRITES = (
    *("mkdir", "mkdirat", "openat", "write", "pwrite64", "ftruncate", "fsync"),
    *("rename", "renameat", "renameat2", "rmdir", "unlinkat"),
)
CODES = {
    "EIO": {"fetch.io", "site.work_base", "storage.sync_failed"},
    "ENOSPC": {"fetch.disk_full", "site.disk_full"},
}


@dataclass(frozen=True)
class Yard:
    """What is written, where to, and the program that does it."""

    here: Path
    there: Path
    what: str

    def run(self, *before: str) -> str | None:
        """Return the code of the error that the program ends with."""
        argv = (*before, sys.executable, "-c", PREFACE + PROGRAMS[self.what])
        done = subprocess.run(
            [*argv, str(self.here), str(self.there)],
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        )
        code: str | None = json.loads(done.stdout)
        return code

    def named(self) -> dict[str, bytes]:
        """Return the files that have got their names."""
        return {
            str(file.relative_to(self.there)): file.read_bytes()
            for file in self.there.rglob("*")
            if file.is_file() and ".part" not in str(file.relative_to(self.there))
        }


def a_yard(base: Path, what: str) -> Yard:
    base.mkdir()
    yard = Yard(base / "here", base / "there", what)
    if what == "outputs":
        workplace = LocalWorkplace(yard.there, spare_bytes=0)
        fill(Path(workplace.prepare(JOB, 1).work_dir))
    fill(yard.here)
    return yard


def fill(folder: Path) -> None:
    for name, data in CONTENT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


CONTENT = {"a/small": b"1", "a/other": b"22", "large": b"3" * 200_000, "b/empty": b""}


def steps(yard: Yard, trace: Path) -> Iterator[tuple[str, int]]:
    """Return the calls of the program's first thread that write below ``there``, each by number."""
    only = "trace=" + ",".join(WRITES)
    assert yard.run("strace", "-f", "-qq", "-y", "-o", str(trace), "-e", only) is None
    lines = [line.split(maxsplit=1) for line in trace.read_text("utf-8").splitlines()]
    seen: dict[tuple[str, str], int] = {}
    for thread, line in lines:
        if (call := re.match(r"(\w+)\(", line)) is None:
            continue
        seen[thread, call[1]] = seen.get((thread, call[1]), 0) + 1
        writes = (call[1] != "openat" or "O_CREAT" in line) and " = -1" not in line
        if thread == lines[0][0] and writes and str(yard.there) in line:
            yield call[1], seen[thread, call[1]]


@pytest.mark.parametrize("error", CODES)
@pytest.mark.parametrize("what", PROGRAMS)
def test_a_write_that_fails_is_one_clear_error_and_loses_nothing(
    tmp_path: Path, what: str, error: str
) -> None:
    """Kills: an error that escapes, is taken for success, or leaves half a file with a name."""
    found = list(steps(a_yard(tmp_path / "whole", what), tmp_path / "trace"))
    assert {call for call, _ in found} >= {"openat"}
    assert len(found) > 5
    for number, (call, nth) in enumerate(found):
        yard = a_yard(tmp_path / str(number), what)
        fault = f"inject={call}:error={error}:when={nth}"
        where = f"{call} {nth} of {found}"
        code = yard.run("strace", "-f", "-qq", "-o", "/dev/null", "-e", fault)
        assert code in CODES[error], where
        if what != "outputs":
            assert yard.named().items() <= CONTENT.items(), where
        assert yard.run() is None, where
        if what != "outputs":
            assert yard.named() == CONTENT, where


@pytest.mark.parametrize("what", ["results", "outputs"])
def test_a_sync_that_fails_is_no_success(tmp_path: Path, what: str) -> None:
    """Every sync of every thread fails. Kills: a result that counts before it is on disk."""
    yard = a_yard(tmp_path / "yard", what)
    code = yard.run("strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=fsync,syncfs:error=EIO")
    assert code in CODES["EIO"]
    assert what == "outputs" or yard.named() == {}
    assert yard.run() is None


@contextmanager
def files_of(most: int) -> Iterator[None]:
    """Let no file of this process grow beyond ``most`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_result_for_which_there_is_no_room_goes_on_when_there_is(tmp_path: Path) -> None:
    yard = a_yard(tmp_path / "yard", "results")
    local, port = LocalTree(scan([("", yard.here)])), MemoryChunks()
    ref = send_tree(local.tree, local.read, port)
    with files_of(1000), pytest.raises(StorageFull) as full:
        fetch_tree(ref, port, yard.there)
    assert (full.value.code, yard.named()) == ("fetch.disk_full", {})
    fetch_tree(ref, port, yard.there)
    assert yard.named() == CONTENT


def test_a_copy_of_outputs_for_which_there_is_no_room_is_made_when_there_is(tmp_path: Path) -> None:
    yard = a_yard(tmp_path / "yard", "outputs")
    workplace = LocalWorkplace(yard.there, spare_bytes=0)
    place = workplace.place(JOB, 1)
    found = workplace.collect(place).found
    with files_of(1000), pytest.raises(StorageFull) as full:
        workplace.stage(place, found, None)
    assert full.value.code == "site.disk_full"
    staged = workplace.stage(place, found, None)
    copied = {str(f.path): b"".join(f.content(staged.read)) for f in staged.tree.files}
    assert copied == CONTENT
