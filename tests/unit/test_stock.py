"""Files that jobs share by links: always right, apart for each submitter, and never too much."""

from __future__ import annotations

import itertools
import os
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sekisho.adapters import stock_directory, vouched
from sekisho.adapters.stock_directory import DirectoryStock
from sekisho.domain.files import RelPath
from sekisho.transfer.content import holds
from sekisho.transfer.pack import SMALL_BYTES
from sekisho.transfer.source import LocalTree, scan
from sekisho.transfer.tree import TreeFile
from tests.cloning import let_clone, let_copy
from tests.modes import obeyed
from tests.stock_yard import PLENTY, Job, Yard

MESH = RelPath.parse("in/mesh")
HOUR = 3601.0


@pytest.fixture(autouse=True)
def _ordinary() -> Iterator[None]:
    with obeyed():
        yield


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    let_copy(monkeypatch)
    made = Yard(tmp_path)
    yield made
    made.stock.close()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count how often a file is read to see what it holds."""
    seen: list[int] = []

    def looked(fd: int, file: TreeFile) -> bool:
        seen.append(file.size)
        return holds(fd, file)

    monkeypatch.setattr(stock_directory, "holds", looked)
    return seen


DATA = os.urandom(SMALL_BYTES + 1000)


class Crash(BaseException):
    """The agent's process ended here."""


CALLS = ("open", "link", "unlink", "fchmod", "utime", "fsync", "mkdir")


@pytest.fixture
def crash_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Give what ends the process at the n-th system call from now on that changes something."""
    left = [0]

    def crashing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise Crash
            return real(*given, **named)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, crashing(getattr(os, name)))

    def arm(number: int) -> None:
        left[0] = number

    return arm


@pytest.mark.parametrize("staged", [0, 1, 2])
def test_wherever_the_agent_dies_the_next_job_gets_the_right_file(
    tmp_path: Path, crash_at: Callable[[int], None], staged: int
) -> None:
    """While the first file is kept, while it is lent, and while it is lent unread."""
    for number in itertools.count(1):
        home = tmp_path / str(number)
        home.mkdir()
        yard = Yard(home)
        for _ in range(staged):
            yard.job(DATA)
        if staged == 2:
            yard.restart()
        crash_at(number)
        try:
            yard.job(DATA)
            crash_at(0)
            yard.stock.close()
            break
        except Crash:
            crash_at(0)
        yard.restart()
        for _ in range(3):
            assert yard.job(DATA).mesh.read_bytes() == DATA
        assert yard.job(DATA).lent
        yard.stock.close()
    assert number > 5


def test_the_next_job_gets_the_same_file_and_nobody_reads_it(yard: Yard, reads: list[int]) -> None:
    first, second, third = (yard.job(DATA) for _ in range(3))
    assert [job.lent for job in (first, second, third)] == [False, True, True]
    assert first.inode == second.inode == third.inode
    assert third.mesh.read_bytes() == DATA
    assert reads == []


def test_many_jobs_at_once_share_one_file_or_have_their_own(yard: Yard) -> None:
    """Kills: a descriptor that one closes while another links through it."""
    trees = [yard.tree(os.urandom(len(DATA))) for _ in range(3)]
    mesh = yard.tree(DATA)
    first = yard.job(DATA)
    places = [yard.place() for _ in range(40)]
    start = threading.Barrier(8)

    def stage(number: int) -> None:
        if number < 8:
            start.wait(30)
        assert yard.stock.lend(
            "alice", places[number], mesh.files, writable=False, lasting=False
        ) == {MESH}
        yard.stock.lend(
            "alice", places[number], trees[number % 3].files, writable=False, lasting=False
        )
        if number % 5 == 0:
            yard.stock.close()  # as when too many others are held

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(stage, range(40)))
    meshes = [Path(place.input_dir, "in", "mesh") for place in places]
    assert {file.stat().st_ino for file in meshes} == {first.inode}


@pytest.mark.parametrize("executable", [False, True])
def test_nobody_may_write_to_it(yard: Yard, executable: bool) -> None:
    for job in [yard.job(DATA, executable=executable) for _ in range(2)]:
        assert stat.S_IMODE(job.mesh.stat().st_mode) == (0o555 if executable else 0o444)
        with pytest.raises(PermissionError):
            job.mesh.open("r+b")


def test_a_small_file_is_not_kept_but_not_writable_either(yard: Yard) -> None:
    yard.job(b"small")
    again = yard.job(b"small")
    assert not again.lent
    assert stat.S_IMODE(again.mesh.stat().st_mode) == 0o444


@pytest.mark.parametrize("other", ["bob", "Alice", "", "..", "alice/"])
def test_another_submitter_gets_another_file(yard: Yard, other: str) -> None:
    """Kills: one folder for all, which would tell bob that alice has a file."""
    mine, theirs = yard.job(DATA), yard.job(DATA, other)
    assert not theirs.lent
    assert mine.inode != theirs.inode
    assert yard.job(DATA, other).inode == theirs.inode


def test_a_file_that_may_be_run_is_another_one(yard: Yard) -> None:
    yard.job(DATA)
    assert not yard.job(DATA, executable=True).lent


def test_a_file_with_other_content_is_another_one(yard: Yard) -> None:
    yard.job(DATA)
    assert not yard.job(DATA[:-1] + bytes([DATA[-1] ^ 1])).lent


def test_what_a_job_does_to_names_modes_and_times_costs_nothing(
    yard: Yard, reads: list[int]
) -> None:
    first = yard.job(DATA)
    second = yard.job(DATA)
    second.mesh.chmod(0o777)
    second.mesh.rename(second.mesh.with_name("other"))
    first.mesh.chmod(0)
    os.utime(first.mesh, (1, 1))
    first.mesh.unlink()
    third = yard.job(DATA)
    assert third.lent
    assert stat.S_IMODE(third.mesh.stat().st_mode) == 0o444
    assert reads == []


def test_a_file_that_a_job_wrote_to_is_found_and_never_lent(yard: Yard, reads: list[int]) -> None:
    yard.job(DATA)
    yard.job(DATA).tamper()
    third = yard.job(DATA)
    assert not third.lent
    assert third.mesh.read_bytes() == DATA
    assert reads == [len(DATA)]
    assert yard.job(DATA).inode == third.inode


def test_without_the_look_the_wrong_bytes_would_be_lent(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shows that the attack above works when the defence is off."""
    yard.job(DATA)
    yard.job(DATA).tamper()
    monkeypatch.setattr(stock_directory, "holds", lambda *_: True)
    assert yard.job(DATA).mesh.read_bytes() != DATA


def test_a_file_that_somebody_is_writing_to_is_not_lent(yard: Yard) -> None:
    """Kills: to look at times alone, which a mapping changes late or never."""
    first = yard.job(DATA)
    writer = first.opened()
    try:
        second = yard.job(DATA)
    finally:
        os.close(writer)
    assert not second.lent
    assert second.inode != first.inode


def test_a_file_that_was_written_to_as_it_was_is_lent_again(yard: Yard, reads: list[int]) -> None:
    yard.job(DATA).tamper(DATA[5:6])
    assert yard.job(DATA).lent
    assert yard.job(DATA).lent
    assert reads == [len(DATA)]


def test_another_agent_reads_a_file_before_it_lends_it(yard: Yard, reads: list[int]) -> None:
    yard.job(DATA)
    yard.restart()
    assert yard.job(DATA).lent
    assert yard.job(DATA).lent
    assert reads == [len(DATA)]


def test_a_file_that_rotted_while_no_agent_ran_is_fetched_anew(yard: Yard) -> None:
    """As what a power cut leaves of a file that was never synced."""
    first = yard.job(DATA)
    yard.restart()
    first.tamper()
    yard.restart()
    assert not yard.job(DATA).lent
    assert yard.job(DATA).lent


def test_after_an_hour_a_file_is_read_again(yard: Yard, reads: list[int]) -> None:
    yard.job(DATA)
    yard.now += HOUR
    assert yard.job(DATA).lent
    assert yard.job(DATA).lent
    assert reads == [len(DATA)]


def test_where_leases_mean_nothing_a_file_is_read_each_time(
    yard: Yard, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stock_directory, "vouches", lambda _: False)
    first = yard.job(DATA)
    assert yard.job(DATA).lent
    assert yard.job(DATA).lent
    assert reads == [len(DATA)] * 2
    first.tamper()
    assert not yard.job(DATA).lent


def test_the_least_recently_lent_goes_first(yard: Yard) -> None:
    size = 2 * (len(DATA) + 4096)
    yard.max_bytes = size
    yard.restart()
    used, old, new = (os.urandom(len(DATA)) for _ in range(3))
    for data in (used, old, used, new):
        yard.job(data)
    assert yard.job(used).lent
    assert yard.job(new).lent
    assert not yard.job(old).lent


def test_it_is_never_more_than_it_may_be_and_says_how_much_it_is(yard: Yard) -> None:
    yard.max_bytes = 5 * len(DATA)
    yard.restart()
    for _ in range(20):
        yard.job(os.urandom(len(DATA)))
    kept = sum(path.stat().st_blocks * 512 for path in yard.kept())
    assert 3 * len(DATA) < kept <= yard.max_bytes
    assert yard.told[-1] == kept
    assert max(yard.told) <= yard.max_bytes


def test_a_smaller_setting_takes_effect_at_the_next_start(yard: Yard) -> None:
    job = yard.job(DATA)
    yard.max_bytes = 0
    yard.restart()
    assert yard.kept() == []
    assert yard.told[-1] == 0
    assert job.mesh.read_bytes() == DATA
    yard.job(DATA)
    assert yard.kept() == []


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_no_descriptor_is_kept_of_what_went(yard: Yard) -> None:
    yard.max_bytes = 3 * len(DATA)
    yard.restart()
    before = open_files()
    for _ in range(30):
        yard.job(os.urandom(len(DATA)))
    assert open_files() <= before + 3


def test_no_more_than_so_many_files_are_held_open(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, reads: list[int]
) -> None:
    monkeypatch.setattr(vouched, "_MOST_HELD", 2)
    data = [os.urandom(len(DATA)) for _ in range(3)]
    for each in (*data, *data):
        yard.job(each)
    assert len(reads) == 3  # each was let go of before it was lent again
    assert yard.job(data[2]).lent
    assert len(reads) == 3


def test_a_disk_with_little_room_is_left_alone(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    yard.stock = DirectoryStock(tmp_path / "base", PLENTY, spare_bytes=1 << 62)
    yard.job(DATA)
    assert not yard.job(DATA).lent


def test_who_is_not_held_back_by_modes_is_lent_nothing(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_, **__: True)  # as for root
    yard.job(DATA)
    assert not yard.job(DATA).lent
    assert yard.kept() == []


def test_with_clones_it_is_lent_them(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each its own: whoever no mode holds back changes nobody else's."""
    let_clone(monkeypatch, yard.home)
    yard.restart()
    monkeypatch.setattr(os, "access", lambda *_, **__: True)  # as for root
    jobs = [yard.job(DATA) for _ in range(3)]
    assert [job.lent for job in jobs] == [False, True, True]
    assert len({job.inode for job in jobs}) == 3
    assert {stat.S_IMODE(job.mesh.stat().st_mode) for job in jobs} == {0o444}


@pytest.mark.parametrize(
    "refusal", [OSError(18, "EXDEV"), OSError(31, "EMLINK"), OSError(1, "EPERM")]
)
def test_where_links_are_not_to_be_had_each_job_gets_its_own(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, refusal: OSError
) -> None:
    yard.job(DATA)

    def link(*_: object, **__: object) -> None:
        raise refusal

    monkeypatch.setattr(os, "link", link)
    second = yard.job(DATA)
    assert not second.lent
    assert second.mesh.read_bytes() == DATA


def test_a_stock_that_cannot_be_made_costs_only_the_sharing(yard: Yard) -> None:
    (yard.home / "base" / ".stock").write_text("not a directory")
    assert not yard.job(DATA).lent
    assert not yard.job(DATA).lent


def test_a_link_in_the_place_of_a_folder_is_not_followed(yard: Yard) -> None:
    yard.job(DATA)
    tree, place = yard.tree(DATA), yard.place()
    outside = yard.home / "outside"
    outside.mkdir()
    Path(place.input_dir, "in").symlink_to(outside)
    assert not yard.stock.lend("alice", place, tree.files, writable=False, lasting=False)
    yard.stock.keep("alice", place, tree.files, writable=False)
    assert list(outside.iterdir()) == []


def test_what_an_earlier_try_left_is_replaced(yard: Yard) -> None:
    yard.job(DATA)
    tree, place = yard.tree(DATA), yard.place()
    mesh = Path(place.input_dir, "in", "mesh")
    mesh.parent.mkdir()
    mesh.write_bytes(b"by half")
    for _ in range(2):
        assert yard.stock.lend("alice", place, tree.files, writable=False, lasting=True) == {MESH}
        assert mesh.read_bytes() == DATA


def test_holes_must_be_empty(yard: Yard) -> None:
    data = DATA + bytes(4 << 20) + DATA
    source = yard.home / "source"
    source.write_bytes(data)
    with source.open("r+b") as file:
        file.truncate(len(DATA))
        file.truncate(len(DATA) + (4 << 20))
        file.seek(0, os.SEEK_END)
        file.write(DATA)
    tree = LocalTree(scan([("in/mesh", source)])).tree
    assert any(chunk.hole for file in tree.files for chunk in file.chunks)
    place = yard.place()
    mesh = Path(place.input_dir, "in", "mesh")
    mesh.parent.mkdir()
    mesh.write_bytes(data)
    yard.stock.keep("alice", place, tree.files, writable=False)
    assert yard.stock.lend("alice", yard.place(), tree.files, writable=False, lasting=False) == {
        MESH
    }
    Job(yard, mesh, lent=True).tamper(at=len(DATA) + (2 << 20))
    assert (
        yard.stock.lend("alice", yard.place(), tree.files, writable=False, lasting=False) == set()
    )
