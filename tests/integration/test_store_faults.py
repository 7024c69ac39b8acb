"""What the broker confirmed is there after a crash, and nothing is there by half (P1)."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sekisho.adapters import durable, migrations
from sekisho.adapters.blobs_directory import BlobDirectory
from sekisho.adapters.durable import CRASH_STATUS, CRASHPOINTS
from sekisho.adapters.sql.engine import Database
from sekisho.adapters.store_sql import SqlStore, open_store, sqlite_url
from sekisho.broker.ports import EVERYONE, JobFilter
from sekisho.domain.errors import SyncFailed
from sekisho.domain.job import JobState
from tests import forked
from tests.integration import storing
from tests.mounts import ALONE
from tests.world import NOW, a_job

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"
STORING = f"{storing.__name__}:typed"


@dataclass
class Broken:
    """What a process told before it ended, and how it ended."""

    status: int
    told: list[str]
    errors: str = field(repr=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A broker's data: 30 drafts that are due and 30 queued jobs."""
    (tmp_path / "chunks").mkdir()
    database = Database(sqlite_url(tmp_path / "broker.sqlite3"))
    migrations.upgrade(database)
    store = open_store(database)
    for _ in range(30):
        store.jobs.add(a_job(expires_at=NOW))
        store.jobs.add(a_job(state=JobState.QUEUED, expires_at=NOW))
    database.close()
    return tmp_path


@pytest.fixture
def kept(folder: Path) -> Iterator[SqlStore]:
    """The store as a restarted broker finds it."""
    store = storing.store_in(folder)
    yield store
    store.database.close()


def environment(crashpoint: str = "") -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{SRC}:{ROOT}", "SEKISHO_CRASHPOINT": crashpoint}


def run(
    folder: Path, action: str, *, count: int = 5, crashpoint: str = "", before: tuple[str, ...] = ()
) -> Broken:
    if before:
        done = subprocess.run(
            [*before, sys.executable, "-m", storing.__name__, str(folder), action, str(count)],
            env=environment(crashpoint),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    else:
        words, env = (folder, action, str(count)), environment(crashpoint)
        done = forked.run(words, env=env, timeout=60, program=STORING)
    return Broken(done.returncode, done.stdout.split(), done.stderr)


# ------------------------------------------------------------------------------ crash points


def points(prefix: str, *nths: int) -> list[str]:
    return [f"{label}:{nth}" for label in CRASHPOINTS if label.startswith(prefix) for nth in nths]


@pytest.mark.parametrize("point", points("file.", 1, 2, 4))
def test_a_stored_chunk_outlives_the_process(folder: Path, point: str) -> None:
    broken = run(folder, "put", crashpoint=point)
    assert broken.status == CRASH_STATUS
    blobs = BlobDirectory(folder / "chunks")
    assert blobs.missing(storing.SPACE, broken.told) == []
    listed = list(blobs.older(datetime.now(UTC) + timedelta(hours=1)))
    assert len(listed) <= len(broken.told) + 1
    for space, digest in listed:
        blobs.read(space, digest)  # verifies
    assert list((folder / "chunks").glob(f"*/*/{durable.TEMPORARY}*")) == []
    assert run(folder, "put").status == 0


@pytest.mark.parametrize("point", points("append.", 1, 3))
def test_a_confirmed_record_outlives_the_process(folder: Path, point: str) -> None:
    broken = run(folder, "append", crashpoint=point)
    assert broken.status == CRASH_STATUS
    lines = (folder / "log").read_text().splitlines()
    assert broken.told == [line.split()[0] for line in lines][: len(broken.told)]
    assert len(lines) <= len(broken.told) + 1


@pytest.mark.parametrize("point", points("store.", 1, 3))
def test_an_accepted_submission_outlives_the_process(
    folder: Path, kept: SqlStore, point: str
) -> None:
    before = {job.id for job in kept.jobs.page(JobFilter(), after=None, limit=999)}
    broken = run(folder, "add", crashpoint=point)
    assert broken.status == CRASH_STATUS
    after = {job.id: job for job in kept.jobs.page(JobFilter(), after=None, limit=999)}
    assert set(broken.told) <= after.keys()
    new = after.keys() - before
    assert len(new) == len(broken.told) + (point.startswith("store.kept"))
    for job_id in new:
        assert after[job_id].request == storing.content(0)
        assert kept.ledger.history(job_id) == [(NOW, JobState.QUEUED)]
    assert kept.ledger.usage().live_jobs == len(after)


@pytest.mark.parametrize("point", points("store.", 1, 3))
def test_a_saved_change_outlives_the_process(folder: Path, kept: SqlStore, point: str) -> None:
    broken = run(folder, "save", crashpoint=point)
    assert broken.status == CRASH_STATUS
    for job_id in broken.told:
        assert kept.jobs.get(job_id, EVERYONE).state is JobState.QUEUED
    jobs = kept.jobs.page(JobFilter(), after=None, limit=999)
    changed = [job for job in jobs if job.version == 1]
    assert len(changed) == len(broken.told) + (point.startswith("store.kept"))
    assert {kept.ledger.history(job.id)[-1][1] for job in changed} <= {JobState.QUEUED}
    assert {len(kept.ledger.history(job.id)) for job in jobs if job.version == 0} == {1}


@pytest.mark.parametrize("point", points("store.", 1, 3))
def test_a_job_is_offered_once_more_or_not_at_all(folder: Path, kept: SqlStore, point: str) -> None:
    broken = run(folder, "offer", crashpoint=point)
    assert broken.status == CRASH_STATUS
    jobs = kept.jobs.page(JobFilter(), after=None, limit=999)
    offered = {job.id for job in jobs if job.state is JobState.OFFERED}
    assert set(broken.told) <= offered
    assert {job.epoch for job in jobs if job.id in offered} <= {1}
    assert len(offered) == len(broken.told) + (point.startswith("store.kept"))


@pytest.mark.parametrize("point", points("store.", 1, 3))
def test_a_declared_chunk_stays_pinned(folder: Path, kept: SqlStore, point: str) -> None:
    broken = run(folder, "declare", crashpoint=point)
    assert broken.status == CRASH_STATUS
    job = min(kept.jobs.due(NOW, limit=999), key=lambda job: job.id)
    assert kept.ledger.needs(job.id, broken.told)
    pinned = kept.ledger.declared(job.id)
    assert kept.ledger.usage().stored_bytes == sum(chunk.size for chunk in pinned)


def test_every_crash_point_is_passed_somewhere_and_listed_once() -> None:
    sources = "\n".join(path.read_text("utf-8") for path in SRC.rglob("*.py"))
    passed = re.findall(r'\bcrashpoint\(\s*"([a-z.]+)"', sources)
    assert set(passed) == CRASHPOINTS.keys()


def test_a_crash_point_that_is_not_listed_is_refused(folder: Path) -> None:
    broken = run(folder, "put", crashpoint="file.nowhere")
    assert broken.status == 1
    assert "file.nowhere" in broken.errors


# ------------------------------------------------------------------------ kill at any moment


@pytest.mark.parametrize("action", ["add", "crowd", "put", "append", "declare"])
@pytest.mark.parametrize("seed", range(3))
def test_what_was_told_before_a_kill_is_there(folder: Path, action: str, seed: int) -> None:
    """The moment is wherever the process is when a random number of answers was read."""
    wanted = random.Random(seed).randrange(1, 60)
    words = (folder, action, "100000")
    with forked.Forked(
        words, env=environment(), stdout=subprocess.PIPE, program=STORING
    ) as process:
        assert process.stdout is not None
        told = [process.stdout.readline().strip() for _ in range(wanted)]
        process.kill()
        told += process.stdout.read().split()
    assert len(told) >= wanted
    assert missing_after(folder, action, told) == []


def missing_after(folder: Path, action: str, told: list[str]) -> list[str]:
    match action:
        case "put":
            return BlobDirectory(folder / "chunks").missing(storing.SPACE, told)
        case "append":
            lines = (folder / "log").read_text().splitlines(keepends=True)
            whole = {line.split()[0] for line in lines if line.endswith(storing.RECORD)}
            return sorted(set(told) - whole)
    store = storing.store_in(folder)
    try:
        if action == "declare":
            job = min(store.jobs.due(NOW, limit=999), key=lambda job: job.id)
            return sorted(set(told) - {chunk.digest for chunk in store.ledger.declared(job.id)})
        jobs = store.jobs.page(JobFilter(), after=None, limit=100_000)
        return sorted(set(told) - {job.id for job in jobs})
    finally:
        store.database.close()


# ------------------------------------------------------------------------------- full disks

FULL = r"""
mount -t tmpfs -o size=3m none "$1" && cp -r "$2"/. "$1" || exit 99
"$3" -m tests.integration.storing "$1" "$4" 1000 >"$2/told"; echo "status $?"
rm -f "$1/ballast"
"$3" -m tests.integration.storing "$1" "$4" 1 >"$2/told.later"; echo "status $?"
rm -rf "$2/after" && cp -r "$1" "$2/after"
"""


@pytest.mark.parametrize("action", ["put", "add"])
def test_a_full_disk_is_told_and_leaves_nothing_by_half(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, action: str
) -> None:
    """A real file system of 3 MiB; when its ballast goes, storing goes on without a restart."""
    small = tmp_path_factory.mktemp("small")
    (folder / "ballast").write_bytes(bytes(1 << 20))
    done = subprocess.run(
        [*ALONE, "sh", "-c", FULL, "sh", small, folder, sys.executable, action],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.split("\n")[:2] == ["status 75", "status 0"], done.stderr
    assert done.stderr.split() == ["storage.full"]
    told = [*(folder / "told").read_text().split(), *(folder / "told.later").read_text().split()]
    after = folder / "after"
    assert missing_after(after, action, told) == []
    assert list(after.rglob(f"{durable.TEMPORARY}*")) == []  # before a listing drops them
    if action == "put":
        blobs = BlobDirectory(after / "chunks")
        listed = list(blobs.older(datetime.now(UTC) + timedelta(hours=1)))
        assert {digest for _, digest in listed} == set(told)
    else:
        store = storing.store_in(after)
        assert store.ledger.usage().live_jobs == 60 + len(told)
        store.database.close()


# ---------------------------------------------------------------------------- disks that lie


@pytest.mark.parametrize("action", ["put", "append", "add", "crowd"])
def test_a_sync_that_fails_ends_the_process_and_confirms_nothing(folder: Path, action: str) -> None:
    inject = ("strace", "-f", "-qq", "-o", str(folder / "trace"))
    calls = ("-e", "inject=fsync,fdatasync:error=EIO")
    broken = run(folder, action, before=(*inject, *calls))
    assert broken.errors.split() == ["storage.sync_failed"]
    assert broken.status == SyncFailed.exit_status
    assert broken.told == []


@pytest.mark.parametrize("action", ["put", "append", "add", "crowd", "save", "offer", "declare"])
def test_nothing_is_confirmed_before_it_is_synced(folder: Path, action: str) -> None:
    """Kills: a dropped or delayed sync, of a file or of the directory that names it."""
    calls = "trace=write,pwrite64,rename,renameat,renameat2,fsync,fdatasync"
    trace = folder / "trace"
    run(folder, action, before=("strace", "-f", "-qq", "-y", "-o", str(trace), "-e", calls))
    lines = [line.split(maxsplit=1)[1] for line in trace.read_text("utf-8").splitlines()]
    confirmations = [n for n, line in enumerate(lines) if line.startswith("write(1<")]
    assert len(confirmations) == 5
    for number in confirmations:
        last = next(line for line in reversed(lines[:number]) if ours(line, folder))
        assert last.startswith(("fsync(", "fdatasync(")), last


def ours(line: str, folder: Path) -> bool:
    """Say whether a system call touched the broker's data; shared memory needs no sync."""
    return str(folder) in line and "-shm>" not in line
