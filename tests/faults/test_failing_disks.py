"""Disks that fail (EIO) or have no room left, under every step that writes, at each party.

What fails is a system call of a real process, by strace. One clear error is told, no file with a
name is ever half, and the same call without the fault brings everything. Among whole parties, a
write that fails is tried anew by who owes the file; a sync that fails ends the process, since
nobody knows what the disk holds then.
"""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sekisho.adapters.chunks_memory import MemoryChunks
from sekisho.adapters.workplace_local import LocalWorkplace
from sekisho.domain.errors import StorageFull, SyncFailed, Unavailable
from sekisho.transfer.fetch import fetch_tree
from sekisho.transfer.send import send_tree
from sekisho.transfer.source import LocalTree, scan
from tests.faults.program import call
from tests.faults.trio import Trio

SECONDS = 120
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


def failing(
    names: str, *, when: str = "1+", error: str = "EIO", trace: Path = Path("/dev/null")
) -> tuple[str, ...]:
    """Return what a program's command line is an argument of, to have such calls fail.

    ``when`` counts the calls of each thread; ``trace`` is a file that tells of all of them.
    """
    calls = ("-e", f"trace={names}", "-e", f"inject={names}:error={error}:when={when}")
    return ("strace", "-D", "-f", "-qq", "--seccomp-bpf", "-o", str(trace), *calls)


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
            timeout=SECONDS,
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
        if (found := re.match(r"(\w+)\(", line)) is None:
            continue
        name = found[1]
        seen[thread, name] = seen.get((thread, name), 0) + 1
        writes = (name != "openat" or "O_CREAT" in line) and " = -1" not in line
        if thread == lines[0][0] and writes and str(yard.there) in line:
            yield name, seen[thread, name]


@pytest.mark.parametrize("error", CODES)
@pytest.mark.parametrize("what", PROGRAMS)
def test_a_write_that_fails_is_one_clear_error_and_loses_nothing(
    tmp_path: Path, what: str, error: str
) -> None:
    """Kills: an error that escapes, is taken for success, or leaves half a file with a name."""
    found = list(steps(a_yard(tmp_path / "whole", what), tmp_path / "trace"))
    assert {name for name, _ in found} >= {"openat"}
    assert len(found) > 5
    for number, (name, nth) in enumerate(found):
        yard = a_yard(tmp_path / str(number), what)
        where = f"{name} {nth} of {found}"
        code = yard.run(*failing(name, when=f"{nth}", error=error))
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
    code = yard.run(*failing("fsync,syncfs"))
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


# ------------------------------------------------------------------ whole parties


def injected(trace: Path) -> int:
    return trace.read_text("utf-8").count("(INJECTED)")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.mark.parametrize("nth", [1, 2])
def test_a_result_that_cannot_be_written_is_told_and_fetched_when_it_can(
    trio: Trio, nth: int
) -> None:
    """Kills: a file under its name that holds what was never written."""
    given, trace = trio.some_input(), trio.home / "trace"
    with trio.connect() as client:
        job = client.submit(trio.spec("one", source=given))
        job.wait(timeout=SECONDS)
    fetch = ("--config", trio.client_config, "fetch", job.id, "--into", trio.home / "got")
    before = failing("pwrite64", when=str(nth), trace=trace)
    _, said = call(trio.environ, *fetch, status=Unavailable.exit_status, before=before)
    assert "error[fetch.io]" in said
    assert injected(trace) == 1
    assert [name for name in contents(trio.home / "got") if ".part/" not in name] == []
    call(trio.environ, *fetch)
    assert contents(trio.home / "got")["out/in/given"] == given.read_bytes()


@pytest.mark.parametrize("when", ["1", "2", "1..3"])
def test_inputs_that_cannot_be_written_at_the_site_are_fetched_again(
    still: Trio, when: str
) -> None:
    """Kills: a job that is failed for a disk's hiccup, or started with half of its inputs."""
    given, trace = still.some_input(), still.home / "trace"
    still.start_broker()
    still.start_agent(*failing("pwrite64", when=when, trace=trace))
    with still.connect() as client:
        job = client.submit(still.spec("one", source=given))
        still.agent.event("run_waits", job=job.id, code="fetch.io", seconds=SECONDS)
        assert job.result(still.home / "got", timeout=SECONDS).state == "succeeded"
    assert injected(trace) >= 1
    assert still.starts() == {"one": 1}
    assert contents(still.home / "got")["out/in/given"] == given.read_bytes()


@pytest.mark.parametrize("nth", [1, 4, 8])
def test_a_broker_whose_disk_fails_at_a_sync_ends_and_its_successor_goes_on(
    still: Trio, nth: int
) -> None:
    """P1, P4: the one submission outlives it; nothing that was confirmed is gone."""
    given, trace = still.some_input(), still.home / "trace"
    still.start_broker(*failing("fsync", when=str(nth), trace=trace))
    still.start_agent()
    with still.connect() as client, ThreadPoolExecutor(1) as beside:
        submitted = beside.submit(client.submit, still.spec("one", source=given))
        assert still.broker.ended(SECONDS) == SyncFailed.exit_status
        still.start_broker()
        job = submitted.result(SECONDS)
        assert job.result(still.home / "got", timeout=SECONDS).state == "succeeded"
    assert injected(trace) == 1
    assert still.starts() == {"one": 1}
    assert contents(still.home / "got")["out/in/given"] == given.read_bytes()
