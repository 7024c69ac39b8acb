"""Removing a job's directory removes nothing else, whatever the job has planted there."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sekisho.adapters.workplace_local import LocalWorkplace
from sekisho.domain.errors import Corrupt

JOB = "job_" + "0" * 26


class Yard:
    """A work directory, and a world outside of it that must stay as it is."""

    def __init__(self, root: Path) -> None:
        self.workplace = LocalWorkplace(root / "base")
        self.work = Path(self.workplace.prepare(JOB, 1).work_dir)
        self.outside = root / "outside"
        (self.outside / "sub").mkdir(parents=True)
        (self.outside / "file").write_text("kept")
        (self.outside / "sub" / "file").write_text("kept")
        (self.outside / "sub").chmod(0o500)
        (self.outside / "file").chmod(0o400)

    def world(self) -> list[tuple[str, int, int, int]]:
        places = [self.outside, *sorted(self.outside.rglob("*"))]
        return [(str(p), p.stat().st_ino, p.stat().st_mode, p.stat().st_size) for p in places]


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


def plant_links(yard: Yard) -> None:
    targets = [yard.outside, yard.outside / "sub", yard.outside / "file", Path("/")]
    for n, target in enumerate(targets):
        (yard.work / f"l{n}").symlink_to(target)
        (yard.work / f"d{n}").mkdir()
        (yard.work / f"d{n}" / "l").symlink_to(target)


def plant_hard_link(yard: Yard) -> None:
    (yard.work / "x").hardlink_to(yard.outside / "file")


def plant_link_for_work(yard: Yard) -> None:
    yard.work.rmdir()
    yard.work.symlink_to(yard.outside)


def plant_link_for_attempt(yard: Yard) -> None:
    attempt = yard.work.parent
    attempt.rename(attempt.with_name("2"))
    attempt.symlink_to(yard.outside)


def plant_link_for_job(yard: Yard) -> None:
    job = yard.work.parents[1]
    job.rename(job.with_name("moved"))
    job.symlink_to(yard.outside)


def plant_loops(yard: Yard) -> None:
    (yard.work / "a").symlink_to("b")
    (yard.work / "b").symlink_to("a")
    (yard.work / "d").mkdir()
    (yard.work / "d" / "up").symlink_to("..")


def plant_special_files(yard: Yard) -> None:
    os.mkfifo(yard.work / "fifo")


def plant_closed_directories(yard: Yard) -> None:
    (yard.work / "a" / "b" / "c").mkdir(parents=True)
    (yard.work / "a" / "b" / "c" / "file").touch()
    for name in ("a/b/c", "a/b", "a"):
        (yard.work / name).chmod(0)


def plant_names(yard: Yard) -> None:
    for name in (b"\xff", b"-rf", b"*", b"a\nb", b"..." + b"x" * 252, "\u202e".encode(), b"~"):
        os.close(os.open(os.fsencode(yard.work) + b"/" + name, os.O_CREAT))


@pytest.mark.parametrize(
    "plant",
    [
        plant_links,
        plant_hard_link,
        plant_link_for_work,
        plant_link_for_attempt,
        plant_link_for_job,
        plant_loops,
        plant_special_files,
        plant_closed_directories,
        plant_names,
    ],
)
def test_everything_of_the_job_goes_and_nothing_else(
    yard: Yard, plant: Callable[[Yard], None]
) -> None:
    plant(yard)
    before = yard.world()
    assert yard.workplace.purge(JOB)
    assert yard.workplace.jobs() == []
    if plant is not plant_hard_link:  # its link count has gone back
        assert yard.world() == before
    assert (yard.outside / "file").read_text() == "kept"
    assert list((yard.work.parents[2] / ".trash").iterdir()) == []


def test_a_trash_folder_that_is_a_link_is_not_emptied(yard: Yard) -> None:
    trash = yard.work.parents[2] / ".trash"
    if trash.is_dir():
        trash.rmdir()
    trash.symlink_to(yard.outside)
    before = yard.world()
    with pytest.raises(Corrupt):
        yard.workplace.purge(JOB)
    assert yard.world() == before
