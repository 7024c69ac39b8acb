"""Disks that are really full: a small file system under the broker, then under the site's state.

Nothing that was acknowledged is lost, what cannot be kept is said not to be, and as soon as there
is room again everything goes on, in the same processes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import msgspec
import pytest

from sekisho.domain.errors import StorageFull
from sekisho.domain.limits import CHUNK_BYTES, MIB
from sekisho.wire.frames import Chunk, digest_of, frame, pack_chunks
from tests.component.broker_world import a_submission
from tests.faults.program import call
from tests.faults.trio import SITE, WHOLE_LIFE, Trio
from tests.mounts import ALONE
from tests.proxy import HOST

#: Puts a file system of a size, $2, over the directory $1, with what it holds; goes on as $3….
SMALL = """
cp -a "$1" "$1.kept" && mount -t tmpfs -o "size=$2,mode=0700" none "$1" &&
cp -a "$1.kept/." "$1/" && shift 2 && exec "$@"
"""
FULL = (507, StorageFull.code)
SECONDS = 120


@dataclass
class SmallDisk:
    """The file system that only the process ``pid`` sees at ``place``."""

    place: Path
    pid: int = 0

    @property
    def root(self) -> Path:
        return Path(f"/proc/{self.pid}/root{self.place}")

    def before(self, size: int, names: int = 100_000) -> tuple[str, ...]:
        """Return what a program's command line is an argument of, to have this disk.

        It has room for ``size`` bytes and so many ``names``.
        """
        what = f"{size},nr_inodes={names}"
        return (*ALONE, "sh", "-c", SMALL, "sh", str(self.place), what)

    def leave(self, *, pages: int | None = None, names: int | None = None) -> None:
        """Let there be room for exactly so much more."""
        (self.root / "ballast").touch()
        seen = os.statvfs(self.root)
        if pages is not None:
            (self.root / "ballast").write_bytes(bytes((seen.f_bavail - pages) * seen.f_frsize))
        for number in range(0 if names is None else seen.f_ffree - names):
            (self.root / f"ballast.{number}").touch()

    def fill(self) -> None:
        """Write until not one byte more can be written."""
        with (self.root / "ballast").open("ab", buffering=0) as ballast:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while True:
                        ballast.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def free(self) -> None:
        for ballast in self.root.glob("ballast*"):
            ballast.unlink()


@contextmanager
def talking(trio: Trio) -> Iterator[httpx2.Client]:
    token = (trio.home / "token").read_text().strip()
    base = f"http://{HOST}:{trio.proxy.upstream}/"
    head = {"Authorization": f"Bearer {token}"}
    with httpx2.Client(base_url=base, headers=head, trust_env=False, timeout=SECONDS) as http:
        yield http


@dataclass
class Sender:
    """Sends until the broker has no room, and keeps what it was told is kept."""

    http: httpx2.Client
    disk: SmallDisk

    def submits(self, kept: list[str]) -> tuple[int, str]:
        """Submit jobs until one is not taken; return how that was said."""
        for _ in range(1000):
            self.disk.fill()
            message = a_submission(site=SITE, request=os.urandom(100_000))
            done = self.http.post("v1/jobs", content=msgspec.json.encode(message))
            if done.status_code != 201:
                return done.status_code, done.json()["code"]
            kept.append(message.id)
        return 0, "never full"

    def stores(self, job: str, kept: list[Chunk]) -> tuple[int, str]:
        """Send chunks of one job until one is not stored; return how that was said."""
        for chunk, data in CHUNKS:
            self.disk.fill()
            done = self.http.put(f"v1/jobs/{job}/chunks", content=frame(chunk.digest, data))
            if done.status_code != 200:
                return done.status_code, done.json()["code"]
            kept.append(chunk)
        return 0, "never full"

    def missing(self, job: str) -> int:
        asked = pack_chunks([chunk for chunk, _ in CHUNKS])
        return len(self.http.post(f"v1/jobs/{job}/chunks/missing", content=asked).content) // 32


def a_chunk() -> tuple[Chunk, bytes]:
    data = os.urandom(CHUNK_BYTES // 2)
    return Chunk(digest_of(data), len(data)), data


CHUNKS = [a_chunk() for _ in range(20)]


@pytest.fixture
def disk(still: Trio) -> SmallDisk:
    """The broker's whole data directory is on a disk of 32 MiB, and no floor of free room holds."""
    config = still.broker_config
    config.write_text(
        config.read_text().replace("# free_floor_bytes = 1073741824", "free_floor_bytes = 0")
    )
    small = SmallDisk(still.home / "broker")
    still.start_broker(*small.before(32 * MIB))
    small.pid = still.broker.pid
    still.start_agent()
    return small


def test_a_broker_on_a_full_disk_says_so_loses_nothing_and_recovers(
    still: Trio, disk: SmallDisk
) -> None:
    """P1 with database, its log and the chunks at the last byte; the same process all the time."""
    draft = a_submission(has_inputs=True, site=SITE)
    jobs: list[str] = []
    chunks: list[Chunk] = []
    with talking(still) as http, still.connect() as client:
        sender = Sender(http, disk)
        running = client.submit(still.spec("running", "gate"))
        still.broker.event("job_changed", job=running.id, state="running")
        assert http.post("v1/jobs", content=msgspec.json.encode(draft)).status_code == 201
        sender.missing(draft.id)
        assert sender.stores(draft.id, chunks) == FULL
        assert sender.submits(jobs) == FULL
        assert http.get("health/ready").status_code == 503
        assert http.get("health/live").status_code == 200
        still.open_gate()
        still.agent.event("run_waits", job=running.id, code=StorageFull.code, seconds=SECONDS)
        kept = [http.get(f"v1/jobs/{job}").status_code for job in jobs]
        assert kept == [200] * len(jobs)
        disk.free()
        assert sender.missing(draft.id) == len(CHUNKS) - len(chunks)
        for chunk, data in CHUNKS:
            path = f"v1/jobs/{draft.id}/chunks"
            assert http.put(path, content=frame(chunk.digest, data)).status_code == 200
        assert still.broker.eventually(lambda: http.get("health/ready").status_code == 200)
        assert running.result(still.home / "got", timeout=SECONDS).state == "succeeded"
        assert client.submit(still.spec("later")).wait(timeout=SECONDS).state == "succeeded"
        assert http.get(f"v1/jobs/{draft.id}").json()["state"] == "draft"
        assert [http.get(f"v1/jobs/{job}").status_code for job in jobs] == kept
    assert still.broker.pid == disk.pid
    assert still.starts() == {"running": 1, "later": 1}


def test_a_job_for_which_the_work_directories_have_no_room_fails_and_the_next_one_runs(
    still: Trio,
) -> None:
    """One clear word to the submitter, nothing is started, and the same agent goes on."""
    work = still.site / "work"
    work.mkdir(mode=0o700, exist_ok=True)
    disk = SmallDisk(work)
    still.start_broker()
    still.start_agent(*disk.before(80 * MIB))
    disk.pid = still.agent.pid
    with still.connect() as client:
        disk.fill()
        full = client.submit(still.spec("full", source=still.some_input())).wait(timeout=SECONDS)
        assert (full.state, full.code) == ("failed", "site.disk_full")
        disk.free()
        later = client.submit(still.spec("later", source=still.some_input()))
        assert later.result(still.home / "got", timeout=SECONDS).state == "succeeded"
    assert still.agent.pid == disk.pid
    assert still.starts() == {"later": 1}


@pytest.mark.parametrize("moment", ["before the offer", "while it runs"])
def test_a_site_whose_journal_and_log_are_on_a_full_disk_recovers(still: Trio, moment: str) -> None:
    """P3, P6: without a journal nothing is taken, without a log nothing leaves."""
    disk = SmallDisk(still.site / "state")
    still.start_broker()
    still.start_agent(*disk.before(8 * MIB))
    disk.pid = still.agent.pid
    with still.connect() as client:
        if moment == "before the offer":
            disk.fill()
            (disk.root / "reserve").unlink()
            disk.fill()
            job = client.submit(still.spec("one"))
            still.agent.event("offer_not_taken", job=job.id, code=StorageFull.code)
            assert still.starts() == {}
        else:
            job = client.submit(still.spec("one", "gate"))
            still.broker.event("job_changed", job=job.id, state="running")
            (disk.root / "reserve").unlink()
            disk.fill()
            still.open_gate()
            still.agent.event("run_waits", job=job.id, code=StorageFull.code, seconds=SECONDS)
            assert still.states()[job.id] in ("running", "returning")
        disk.free()
        assert job.result(still.home / "got", timeout=SECONDS).state == "succeeded"
    assert still.starts() == {"one": 1}
    assert still.life(job.id)[-3:] == WHOLE_LIFE[-3:]


def test_a_result_for_which_the_submitter_has_no_room_is_fetched_when_there_is(
    still: Trio,
) -> None:
    """One clear error that says what to do, and the result is still there for the next try."""
    still.start_broker()
    still.start_agent()
    given = still.some_input()
    with still.connect() as client:
        job = client.submit(still.spec("one", source=given))
        job.wait(timeout=SECONDS)
    got = still.home / "got"
    got.mkdir()
    fetch = ("--config", still.client_config, "fetch", job.id, "--into", got)
    small = SmallDisk(got).before(1 * MIB)
    _, said = call(still.environ, *fetch, status=StorageFull.exit_status, before=small)
    assert "error[fetch.disk_full]" in said
    assert "fetch again" in said
    call(still.environ, *fetch)
    assert (got / "out" / "in" / "given").read_bytes() == given.read_bytes()
