"""A bare site whose disk is full, or has kept a record's name and not the record.

Nothing is started twice, nothing is told that is not so, and it goes on when there is room.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sekisho.adapters.hosts.bare import BareHost
from sekisho.client.job import Job
from sekisho.client.spec import JobSpec
from sekisho.compose.push import ssh_host
from sekisho.config.client import load_client
from sekisho.domain.errors import SekishoError, Unavailable
from tests.bare_site import SITE, BareWorld, bare_world
from tests.faults.test_full_disks import SmallDisk
from tests.waiting import until

JOB = "job_" + "0" * 26
TOKEN = "0123456789abcdef"
SECONDS = 120
DISK_BYTES = 8 << 20
DISK_NAMES = 600
PAGE = 4096
#: A job there takes more of both than the one, and less than the other.
FEWEST, MOST = 4, 60


@pytest.fixture
def world(tmp_path: Path) -> Iterator[BareWorld]:
    with bare_world(tmp_path) as made:
        made.program("hold", f'echo started >>"{made.place}/starts"; echo up >up; exec sleep 600')
        yield made


def starts(world: BareWorld) -> list[str]:
    file = world.place / "starts"
    return file.read_text().split() if file.exists() else []


def killed(world: BareWorld, job: Job) -> Path:
    """Kill the wrapper of a running job, and all that it started; return where its record goes."""
    control = world.job_directory(job.id) / "control"
    until((control.parent / "work" / "up").exists, "start")
    mark = f"CALC_DIR={control.parent / 'work'}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)
        except OSError:
            continue
    return control / "exit"


@pytest.mark.parametrize(
    "record",
    [
        "",
        "\n",
        "exit",
        f"{'reserved':<199}\n",
        "exit {token} 0 1",
        "exit {token} 0 1000 2000 ",
        "exit {token} 0 x y .",
        "exit 0123456789abcdef0123456789abcdef 0 1000 2000 .\n",
    ],
)
def test_a_torn_record_ends_in_an_unknown_fate(world: BareWorld, record: str) -> None:
    """Kills: asking for ever what a power cut has taken; a success that nobody has recorded."""
    with world.client() as client:
        job = client.submit(JobSpec(site=SITE, command="hold"))
        file = killed(world, job)
        token = (file.parent / "latch" / "start").read_text().split()[1]
        file.write_text(record.format(token=token))
        assert job.wait(timeout=SECONDS).state == "lost"
    assert starts(world) == ["started"]


def test_a_whole_record_is_believed_whatever_became_of_its_writer(world: BareWorld) -> None:
    with world.client() as client:
        job = client.submit(JobSpec(site=SITE, command="hold"))
        file = killed(world, job)
        token = (file.parent / "latch" / "start").read_text().split()[1]
        file.write_text(f"exit {token} 0 1000 2000 .\n")
        assert job.wait(timeout=SECONDS).state == "succeeded"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[tuple[BareWorld, SmallDisk]]:
    """A site whose jobs are on a disk of their own."""
    (tmp_path / "base").mkdir(mode=0o700)
    disk = SmallDisk(tmp_path / "base")
    with bare_world(tmp_path, within=disk.before(DISK_BYTES, DISK_NAMES)) as made:
        disk.pid = made.server.process.pid if made.server.process else 0
        made.program("once", f'echo started >>"{made.place}/starts"; cp in.dat out.dat')
        yield made, disk


@pytest.fixture
def host(small: tuple[BareWorld, SmallDisk], monkeypatch: pytest.MonkeyPatch) -> BareHost:
    """What the client makes of the site, verb by verb."""
    world, _ = small
    for name, value in world.environ().items():
        monkeypatch.setenv(name, value)
    files = load_client(world.config)
    return BareHost(ssh_host(files.settings.site[SITE], files, SITE), str(world.base))


def full(ask: Callable[[], object]) -> str:
    with pytest.raises(Unavailable) as told:
        ask()
    return told.value.code


def word(host: BareHost) -> str:
    return host.look({JOB: ""}, 0)[1][JOB].word


def test_a_bare_site_without_room_says_so_at_every_step_and_starts_once(
    small: tuple[BareWorld, SmallDisk], host: BareHost
) -> None:
    """Kills: a job that waits for its turn for ever because its wrapper has found no room."""
    world, disk = small
    argv = ["/bin/sh", "-c", f"echo started >>{world.place}/starts"]
    disk.fill()
    assert full(lambda: host.make(JOB, b"{}")) == "bare.storage"
    disk.free()
    assert host.make(JOB, b"{}") == ("making", b"{}")
    disk.fill()
    assert full(lambda: host.start(JOB, TOKEN, argv)) == "bare.storage"
    assert word(host) in ("making", "ready")
    assert full(lambda: host.start(JOB, TOKEN, argv)) == "bare.storage"
    disk.free()
    host.start(JOB, TOKEN, argv)
    until(lambda: word(host) == "exit", "end")
    assert starts(world) == ["started"]


def test_inputs_that_find_no_room_at_a_bare_site_are_waited_for(
    small: tuple[BareWorld, SmallDisk], tmp_path: Path
) -> None:
    """The same client goes on as soon as there is room. Kills: half of an input as an input."""
    world, disk = small
    given = tmp_path / "in.dat"
    given.write_bytes(os.urandom(2 << 20))
    taken = disk.root / "taken"
    taken.write_bytes(bytes(7 << 20))
    codes: list[str] = []
    waited = threading.Event()

    def hear(error: SekishoError | None, _: float) -> None:
        codes.append(error.code if error else "")
        waited.set()

    with world.client(on_pause=hear) as client, ThreadPoolExecutor(1) as beside:
        spec = JobSpec(site=SITE, command="once", inputs=[given], outputs=["out.dat"])
        made = beside.submit(client.submit, spec)
        assert waited.wait(SECONDS)
        assert (codes[0], starts(world)) == ("bare.storage", [])
        taken.unlink()
        result = made.result(SECONDS).result(tmp_path / "got", timeout=SECONDS)
    assert result.state == "succeeded"
    assert (tmp_path / "got" / "out.dat").read_bytes() == given.read_bytes()
    assert starts(world) == ["started"]


@pytest.mark.time_limit(600)
@pytest.mark.parametrize("what", ["pages", "names"])
def test_a_bare_site_whose_disk_is_full_at_any_write_costs_time_and_no_start(
    small: tuple[BareWorld, SmallDisk], tmp_path: Path, what: str
) -> None:
    """The disk has room for so much, and for one more in the next job, until a job needs no more.

    Kills: a word that nobody understands, an input that is half there, a job that waits for ever,
    a cancelled start. The program itself may find no room; then it fails as it says.
    """
    world, disk = small
    told: set[str] = set()
    for room in range(MOST):
        given = tmp_path / f"in{room}"
        given.write_bytes(os.urandom(3 * PAGE))
        disk.leave(**{what: room})
        spec = JobSpec(site=SITE, command="once", inputs={"in.dat": given}, outputs=["out.dat"])
        codes, ended = a_full_course(world, disk, spec, tmp_path / f"got{room}")
        assert codes <= {"bare.storage"}, (room, codes)
        told |= codes
        assert starts(world) == ["started"], (room, codes, ended)
        (world.place / "starts").unlink()
        if ended == "succeeded":
            assert (tmp_path / f"got{room}" / "out.dat").read_bytes() == given.read_bytes()
            if not codes:
                break
        else:
            assert (ended, codes) == ("failed", set()), room
        for old in disk.root.glob("job_*"):
            shutil.rmtree(old)
    assert told == {"bare.storage"}
    assert FEWEST < room < MOST - 1


def a_full_course(
    world: BareWorld, disk: SmallDisk, spec: JobSpec, into: Path
) -> tuple[set[str], str]:
    """Return what was waited for until there was room again, and the state of the job's end."""
    codes: set[str] = set()
    news = threading.Event()

    def hear(error: SekishoError | None, _: float) -> None:
        codes.update([error.code] if error else [])
        news.set()

    with world.client(on_pause=hear) as client, ThreadPoolExecutor(1) as beside:

        def course() -> str:
            try:
                job = client.submit(spec)
                state = job.wait(timeout=SECONDS).state
                if state == "succeeded":
                    job.result(into, timeout=SECONDS)
                return state
            finally:
                news.set()

        ended = beside.submit(course)
        assert news.wait(SECONDS)
        disk.free()
        return codes, ended.result(SECONDS)


def test_a_cancel_for_which_there_is_no_room_is_waited_for_and_cancels(
    small: tuple[BareWorld, SmallDisk], host: BareHost
) -> None:
    """Kills: a latch that is nobody's, after which a job that never started is lost."""
    _, disk = small
    host.make(JOB, b"{}")
    disk.leave(names=0)
    assert full(lambda: host.cancel(JOB)) == "bare.storage"
    assert word(host) == "making"
    disk.free()
    host.cancel(JOB)
    assert word(host) == "cancelled"
