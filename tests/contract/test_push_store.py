"""PushStore in a directory: one job for one id, whoever asks, in whatever process, at any crash."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sekisho.adapters.durable import CRASH_STATUS, CRASHPOINTS, TEMPORARY
from sekisho.adapters.push_directory import DirectoryPushStore
from sekisho.client.client import new_job_id
from sekisho.domain.errors import Conflict, Corrupt, NotFound, SekishoError, Unavailable
from sekisho.site.push import PushJob, PushStore
from tests.world import DAY

NOW = datetime(2026, 4, 1, 9, tzinfo=UTC)


def a_job(**changes: object) -> PushJob:
    usual: dict[str, object] = {
        "id": new_job_id(),
        "site": "kobe",
        "submitter": "alice",
        "request": b"\x00\xff request",
        "digest": "d",
        "created_at": NOW,
        "expires_at": NOW + DAY,
    }
    return PushJob(**{**usual, **changes})  # type: ignore[arg-type]


def welcome() -> None:
    """Let a new job in."""


@pytest.fixture
def store(tmp_path: Path) -> PushStore:
    return DirectoryPushStore(tmp_path / "push")


def test_what_was_added_is_found_by_another(store: PushStore, tmp_path: Path) -> None:
    job = store.add(a_job(), welcome)
    other = DirectoryPushStore(tmp_path / "push")
    assert other.get(job.id, "alice") == job
    assert other.of("alice") == other.of(None) == [job]


def test_adding_again_gives_the_kept_one(store: PushStore) -> None:
    job = a_job()
    store.add(job, welcome)
    kept = store.update(job.id, "alice", lambda one: replace(one, ready=True))
    assert store.add(job, welcome) == kept


@pytest.mark.parametrize("change", [{"digest": "other"}, {"submitter": "bob"}])
def test_an_id_belongs_to_the_first(store: PushStore, change: dict[str, str]) -> None:
    job = store.add(a_job(), welcome)
    with pytest.raises(Conflict):
        store.add(replace(job, **change), welcome)  # type: ignore[arg-type]
    assert store.of(None) == [job]


def test_who_is_not_admitted_leaves_nothing(store: PushStore) -> None:
    def refuse() -> None:
        raise Conflict("job.replayed")

    with pytest.raises(Conflict):
        store.add(a_job(), refuse)
    assert store.of(None) == []


def test_a_kept_job_is_not_asked_to_be_admitted_again(store: PushStore) -> None:
    job = store.add(a_job(), welcome)
    assert store.add(job, lambda: pytest.fail("asked")) == job


@pytest.mark.parametrize("submitter", ["bob", "", "alice "])
def test_a_job_of_another_is_not_found(store: PushStore, submitter: str) -> None:
    job = store.add(a_job(), welcome)
    with pytest.raises(NotFound):
        store.get(job.id, submitter)
    with pytest.raises(NotFound):
        store.update(job.id, submitter, lambda one: replace(one, ready=True))
    assert store.of(submitter) == []
    assert store.get(job.id, "alice") == job


def test_a_change_that_fails_changes_nothing(store: PushStore) -> None:
    job = store.add(a_job(), welcome)

    def fail(_: PushJob) -> PushJob:
        raise Conflict("job.not_ended")

    with pytest.raises(Conflict):
        store.update(job.id, "alice", fail)
    assert store.get(job.id, "alice") == job


def test_jobs_come_newest_first(store: PushStore) -> None:
    ids = [store.add(a_job(), welcome).id for _ in range(10)]
    assert [job.id for job in store.of(None)] == sorted(ids, reverse=True)


def test_what_was_removed_is_gone_and_may_be_removed_again(store: PushStore) -> None:
    job = store.add(a_job(), welcome)
    store.remove(job.id)
    store.remove(job.id)
    with pytest.raises(NotFound):
        store.get(job.id, "alice")


@pytest.mark.parametrize("name", ["", "..", "../lock", "/etc/passwd", "job_" + "u" * 26])
def test_a_name_that_is_no_id_leads_nowhere(store: PushStore, name: str) -> None:
    for call in (lambda: store.get(name, "alice"), lambda: store.remove(name)):
        with pytest.raises(SekishoError):
            call()


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"\xff", b'{"id":1}'])
def test_a_damaged_record_is_named(store: PushStore, tmp_path: Path, content: bytes) -> None:
    job = store.add(a_job(), welcome)
    (tmp_path / "push" / "jobs" / f"{job.id}.json").write_bytes(content)
    with pytest.raises(Corrupt) as caught:
        store.get(job.id, "alice")
    assert caught.value.params == {"job": job.id}


def test_records_are_private(store: PushStore, tmp_path: Path) -> None:
    store.add(a_job(), welcome)
    modes = {file.stat().st_mode & 0o077 for file in (tmp_path / "push").rglob("*")}
    assert modes == {0}


def test_a_lock_that_is_a_link_is_not_opened(store: PushStore, tmp_path: Path) -> None:
    (tmp_path / "push" / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unavailable):
        store.add(a_job(), welcome)
    assert not (tmp_path / "elsewhere").exists()


def test_no_update_is_lost_between_threads(store: PushStore, tmp_path: Path) -> None:
    job = store.add(a_job(request=b""), welcome)

    def grow(_: int) -> None:
        own = DirectoryPushStore(tmp_path / "push")
        own.update(job.id, "alice", lambda one: replace(one, request=one.request + b"x"))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(grow, range(40)))
    assert store.get(job.id, "alice").request == b"x" * 40


# --------------------------------------------------------------------------- processes

WORKER = """
import sys
from dataclasses import replace
from pathlib import Path
from sekisho.adapters.push_directory import DirectoryPushStore
from sekisho.domain.errors import Conflict
from tests.contract.test_push_store import a_job, welcome
place, job, mine, times = sys.argv[1:]
store = DirectoryPushStore(Path(place))
sys.stdin.read(1)
try:
    store.add(a_job(id=job, digest=mine, request=b""), welcome)
    print("added", flush=True)
except Conflict:
    print("refused", flush=True)
for _ in range(int(times)):
    store.update(job, "alice", lambda one: replace(one, request=one.request + mine.encode()))
"""


def worker(place: Path, job: str, mine: str, times: int, **environ: str) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(place), job, mine, str(times)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, **environ},
    )


def test_one_of_several_processes_adds_a_job_and_no_update_is_lost(tmp_path: Path) -> None:
    job = new_job_id()
    workers = [worker(tmp_path / "push", job, mine, 20) for mine in "abcd"]
    for process in workers:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.close()
    said = []
    for process in workers:
        assert process.stdout
        said.append(process.stdout.read().strip())
        process.stdout.close()
        assert process.wait(30) == 0
    assert sorted(said) == ["added", "refused", "refused", "refused"]
    kept = DirectoryPushStore(tmp_path / "push").get(job, "alice").request
    assert {mine: kept.count(mine.encode()) for mine in "abcd"} == dict.fromkeys("abcd", 20)


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("label", [name for name in CRASHPOINTS if name.startswith("file.")])
def test_a_crash_leaves_the_old_record_or_the_new(tmp_path: Path, label: str, nth: int) -> None:
    """P1: what was answered is there; what was not may be repeated and makes no second job."""
    job = new_job_id()
    process = worker(tmp_path / "push", job, "a", 1, SEKISHO_CRASHPOINT=f"{label}:{nth}")
    said, _ = process.communicate("\n", timeout=30)
    assert process.returncode == CRASH_STATUS
    store = DirectoryPushStore(tmp_path / "push")
    kept = [one.request for one in store.of(None)]
    assert kept in ([[], [b""]] if nth == 1 else [[b""], [b"a"]])
    assert (said == "added\n") == (nth == 2)
    store.add(a_job(id=job, digest="a", request=b""), welcome)
    assert len(store.of(None)) == 1
    store.remove(job)
    assert not list((tmp_path / "push" / "jobs").glob(f"{TEMPORARY}*"))
