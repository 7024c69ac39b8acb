"""What only a disk that clones can show. Run by `test_cloning_disks`, on one of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sekisho.adapters.lease import vouches
from sekisho.adapters.reflink import can_clone
from sekisho.transfer.flush import flush
from tests.stock_yard import Yard

MIB = 1 << 20
DATA = os.urandom(16 * MIB)


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path)
    yield made
    made.stock.close()


@contextmanager
def opened(folder: Path) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def free_bytes(folder: Path) -> int:
    """Return how much room there is when all is on the disk."""
    with opened(folder) as fd:
        flush(fd)
        room = os.fstatvfs(fd)
    return room.f_bfree * room.f_frsize


def test_this_disk_clones_and_its_leases_are_trusted(tmp_path: Path) -> None:
    """Kills: a kind of file system that is not found out, as by its device number on btrfs."""
    assert can_clone(tmp_path)
    with opened(tmp_path) as fd:
        assert vouches(fd)


def test_the_same_again_takes_no_room(yard: Yard) -> None:
    yard.job(DATA, writable=True)
    before = free_bytes(yard.home)
    jobs = [yard.job(DATA, writable=True) for _ in range(5)]
    assert all(job.lent for job in jobs)
    assert before - free_bytes(yard.home) < 2 * MIB
    (yard.home / "copy").write_bytes(DATA)  # shows that it would be seen
    assert before - free_bytes(yard.home) >= len(DATA)


def fill(file: Path) -> None:
    """Take all the room that there is, but for less than a MiB."""
    size = free_bytes(file.parent)
    with file.open("wb") as full:
        while size > MIB:
            try:
                os.posix_fallocate(full.fileno(), file.stat().st_size, size)
            except OSError:
                size //= 2


def test_a_job_for_whose_changes_there_is_no_room_is_told_so_and_harms_nobody(yard: Yard) -> None:
    """Kills: a clone that is written through to what others share."""
    yard.job(DATA, writable=True)
    job = yard.job(DATA, writable=True)
    files, place = yard.tree(DATA).files, yard.place()
    fill(yard.home / "filler")
    with job.mesh.open("r+b", buffering=0) as mine, pytest.raises(OSError, match="No space"):
        rewrite(mine.fileno())
    (yard.home / "filler").unlink()
    assert yard.stock.lend("alice", place, files, writable=True, lasting=False)
    assert Path(place.input_dir, "in", "mesh").read_bytes() == DATA


def rewrite(fd: int) -> None:
    for start in range(0, len(DATA), MIB):
        os.pwrite(fd, bytes(MIB), start)
    os.fsync(fd)
