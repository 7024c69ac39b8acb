"""Files that jobs get as clones: their own, right when they are lent, and never too much kept.

Where the tests' own disk clones no files a copy stands for a clone; `test_cloning_disks` runs them
where it does.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sekisho.adapters import loan, reflink, stock_directory
from sekisho.adapters.reflink import can_clone
from sekisho.adapters.stock_directory import DirectoryStock
from sekisho.transfer.content import holds
from sekisho.transfer.pack import SMALL_BYTES
from sekisho.transfer.tree import TreeFile
from tests.cloning import let_clone, let_copy
from tests.stock_yard import PLENTY, Job, Yard

DATA = os.urandom(SMALL_BYTES + 1000)
HOUR = 3601.0
CLONE = reflink.clone


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    let_clone(monkeypatch, tmp_path)
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


def own(yard: Yard, data: bytes = DATA, submitter: str = "alice") -> Job:
    return yard.job(data, submitter, writable=True)


def spoil(file: Path, at: int = 5) -> None:
    """Write to a file in place, and put its times back."""
    seen = file.stat()
    file.chmod(0o600)
    with file.open("r+b") as opened:
        opened.seek(at)
        byte = opened.read(1)[0]
        opened.seek(at)
        opened.write(bytes([byte ^ 1]))
    os.utime(file, ns=(seen.st_atime_ns, seen.st_mtime_ns))


def test_the_next_job_gets_a_file_of_its_own_and_nobody_reads_it(
    yard: Yard, reads: list[int]
) -> None:
    jobs = [own(yard) for _ in range(4)]
    assert [job.lent for job in jobs] == [False, True, True, True]
    (kept,) = yard.kept()
    inodes = {job.inode for job in jobs} | {kept.stat().st_ino}
    assert len(inodes) == 5
    assert {job.mesh.stat().st_nlink for job in jobs} == {1}
    assert {job.mesh.read_bytes() for job in jobs} == {DATA}
    assert reads == []


def test_whoever_writes_to_its_own_is_not_even_waited_for(yard: Yard, reads: list[int]) -> None:
    """A writer of a file that jobs share would have to wait until the agent gives way."""
    first, second = own(yard), own(yard)
    for job in (first, second):
        os.close(os.open(job.mesh, os.O_RDWR | os.O_NONBLOCK))
        spoil(job.mesh)
    held = os.open(second.mesh, os.O_RDWR)  # and goes on writing while the stock lends
    try:
        third = own(yard)
        os.pwrite(held, b"more", 0)
    finally:
        os.close(held)
    assert third.lent
    assert third.mesh.read_bytes() == DATA
    assert reads == []


def test_a_stocked_file_that_somebody_wrote_to_is_found_and_never_lent(
    yard: Yard, reads: list[int]
) -> None:
    own(yard)
    (kept,) = yard.kept()
    Job(yard, kept, lent=False).tamper()
    second = own(yard)
    assert not second.lent
    assert second.mesh.read_bytes() == DATA
    assert reads == [len(DATA)]
    assert own(yard).lent


def test_without_the_look_the_wrong_bytes_would_be_lent(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shows that the attack above works when the defence is off."""
    own(yard)
    (kept,) = yard.kept()
    Job(yard, kept, lent=False).tamper()
    monkeypatch.setattr(stock_directory, "holds", lambda *_: True)
    assert own(yard).mesh.read_bytes() != DATA


def meanwhile(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let somebody write to the stock's file after it was trusted, before it is cloned."""
    real = reflink.clone
    (kept,) = yard.kept()

    def late(from_fd: int, to_fd: int) -> bool:
        with pytest.raises(BlockingIOError):  # it asks, and is not told to wait
            os.open(kept, os.O_RDWR | os.O_NONBLOCK)
        kept_bytes = os.pread(from_fd, len(DATA), 0)
        assert real(from_fd, to_fd)
        os.pwrite(to_fd, bytes([kept_bytes[0] ^ 1]), 0)  # what the clone would be a moment later
        return True

    monkeypatch.setattr(reflink, "clone", late)


def test_what_somebody_opened_to_write_while_it_was_cloned_is_not_lent(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: a clone that is believed because its original was right a moment before."""
    own(yard).mesh.unlink()
    (kept,) = yard.kept()
    kept.chmod(0o600)
    meanwhile(yard, monkeypatch)
    place, tree = yard.place(), yard.tree(DATA)
    assert not yard.stock.lend("alice", place, tree.files, writable=True, lasting=False)
    assert list(Path(place.input_dir).rglob("mesh")) == []


def test_without_the_second_look_it_would_be_lent(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shows that the attack above works when the defence is off."""
    own(yard).mesh.unlink()
    (kept,) = yard.kept()
    kept.chmod(0o600)
    meanwhile(yard, monkeypatch)
    monkeypatch.setattr(loan, "leased", lambda _: True)
    assert own(yard).mesh.read_bytes() != DATA


def test_another_agent_and_a_later_hour_read_it_once(yard: Yard, reads: list[int]) -> None:
    own(yard)
    yard.restart()
    assert own(yard).lent
    assert own(yard).lent
    assert len(reads) == 1
    yard.now += HOUR
    assert own(yard).lent
    assert len(reads) == 2


def test_what_rotted_while_no_agent_ran_is_fetched_anew(yard: Yard) -> None:
    own(yard)
    yard.stock.close()
    spoil(yard.kept()[0])
    yard.start()
    assert not own(yard).lent
    assert own(yard).lent


def test_where_leases_mean_nothing_it_is_read_each_time(
    yard: Yard, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (stock_directory, loan):
        monkeypatch.setattr(module, "vouches", lambda _: False)
    own(yard)
    assert own(yard).lent
    assert own(yard).lent
    assert reads == [len(DATA)] * 2
    spoil(yard.kept()[0])
    assert not own(yard).lent


@pytest.mark.parametrize("other", ["bob", "Alice", ""])
def test_another_submitter_gets_another_file(yard: Yard, other: str) -> None:
    own(yard)
    assert not own(yard, submitter=other).lent
    assert own(yard, submitter=other).lent
    assert len(yard.kept()) == 2


def test_clones_take_half_of_the_room_and_links_may_have_all(yard: Yard) -> None:
    """Kills: a stock that leaves the cache of chunks no room for what changes a little."""
    yard.max_bytes = 8 * (SMALL_BYTES + 4096)
    yard.restart()
    contents = [os.urandom(len(DATA)) for _ in range(12)]
    for data in contents:
        own(yard, data)
    assert len(yard.kept()) == 4
    assert yard.told[-1] == sum(path.stat().st_blocks * 512 for path in yard.kept())
    assert [own(yard, data).lent for data in contents[-4:]] == [True] * 4
    assert not own(yard, contents[0]).lent


def test_one_that_is_larger_than_that_is_not_kept(yard: Yard) -> None:
    yard.max_bytes = 2 * len(DATA) - 1
    yard.restart()
    own(yard)
    assert not own(yard).lent
    assert yard.kept() == []


def test_the_least_recently_lent_goes_first(yard: Yard) -> None:
    yard.max_bytes = 4 * (SMALL_BYTES + 4096)
    yard.restart()
    used, old, new = (os.urandom(len(DATA)) for _ in range(3))
    for data in (used, old, used, new):
        own(yard, data)
    assert [own(yard, data).lent for data in (used, new, old)] == [True, True, False]


def test_a_disk_with_little_room_is_left_alone(yard: Yard) -> None:
    yard.stock = DirectoryStock(yard.home / "base", PLENTY, spare_bytes=1 << 62)
    own(yard)
    assert yard.kept() == []


def test_room_for_a_copy_is_not_asked_for_what_is_cloned(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is no reason not to lend: a clone takes no room."""
    own(yard)
    full = os.statvfs_result((4096, 4096, 0, 0, 0, 0, 0, 0, 0, 255))
    for call in ("statvfs", "fstatvfs"):
        monkeypatch.setattr(os, call, lambda _: full)
    assert own(yard).lent


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY])
def test_where_this_file_cannot_be_cloned_it_is_copied(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """As with another mount in between, whatever the first try said."""
    own(yard)
    refuse(monkeypatch, code)
    second = own(yard)
    assert not second.lent
    assert second.mesh.read_bytes() == DATA


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY])
def test_where_nothing_can_be_cloned_all_is_as_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    refuse(monkeypatch, code)
    yard = Yard(tmp_path)
    assert not yard.stock.clones
    for _ in range(2):
        assert not own(yard).lent
    assert not (tmp_path / "base" / ".stock").exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EPERM])
def test_a_disk_that_fails_at_it_costs_the_sharing_and_nothing_else(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    own(yard)
    refuse(monkeypatch, code)
    second = own(yard)
    assert not second.lent
    assert second.mesh.read_bytes() == DATA
    assert len(yard.kept()) == 1


def refuse(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Let the kernel answer each clone with ``code``."""

    def ioctl(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(reflink, "clone", CLONE)
    monkeypatch.setattr(fcntl, "ioctl", ioctl)


@pytest.mark.parametrize("machine", ["ppc64le", "mips64", "sparc64", "alpha"])
def test_the_number_of_the_call_is_that_of_the_machine(machine: str) -> None:
    """As the kernel's headers have it (asm/ioctl.h): two bits for the direction, there three."""
    assert reflink.ficlone(machine) == 0x80049409
    for other in ("x86_64", "aarch64", "riscv64", "s390x", "i686", "armv7l"):
        assert reflink.ficlone(other) == 0x40049409


def test_whether_there_are_clones_is_tried_and_leaves_nothing(tmp_path: Path) -> None:
    can_clone(tmp_path)
    assert not can_clone(tmp_path / "nowhere")
    assert not can_clone(Path("/proc/self"))
    assert list(tmp_path.iterdir()) == []


def test_a_base_that_is_not_there_yet_is_judged_by_where_it_will_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_clone(monkeypatch, tmp_path)
    assert DirectoryStock(tmp_path / "base", PLENTY).clones
    let_copy(monkeypatch)
    assert not DirectoryStock(tmp_path / "base", PLENTY).clones
    assert list(tmp_path.iterdir()) == []


class Crash(BaseException):
    """The agent's process ended here."""


CALLS = ("open", "link", "unlink", "fchmod", "utime", "fsync", "mkdir", "close")


@pytest.fixture
def crash_at(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Give what ends the process at the n-th system call from now on that changes something."""
    left = [0]
    del yard

    def crashing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise Crash
            return real(*given, **named)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, crashing(getattr(os, name)))
    monkeypatch.setattr(reflink, "clone", crashing(reflink.clone))

    def arm(number: int) -> None:
        left[0] = number

    return arm


@pytest.mark.parametrize("staged", [0, 1, 2])
def test_wherever_the_agent_dies_the_next_job_gets_the_right_file(
    tmp_path: Path, crash_at: Callable[[int], None], staged: int
) -> None:
    """While the first file is kept, while it is cloned, and while it is cloned unread."""
    for number in itertools.count(1):
        home = tmp_path / str(number)
        home.mkdir()
        yard = Yard(home)
        for _ in range(staged):
            own(yard)
        if staged == 2:
            yard.restart()
        crash_at(number)
        try:
            own(yard)
            crash_at(0)
            yard.stock.close()
            break
        except Crash:
            crash_at(0)
        yard.restart()
        for _ in range(3):
            assert own(yard).mesh.read_bytes() == DATA
        assert own(yard).lent
        assert len(yard.kept()) == 1
        yard.stock.close()
    assert number > 5
