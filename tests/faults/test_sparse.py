"""Files that are mostly holes: what counts is what is written, at every party and in both ways."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.adapters.workplace_local import LocalWorkplace
from sekisho.client.spec import JobSpec
from sekisho.domain.egress import Found
from sekisho.domain.errors import StorageFull
from sekisho.site.workplace import Place
from tests.bare_site import SITE, BareWorld, bare_world
from tests.faults.test_full_disks import SmallDisk
from tests.faults.trio import Trio

JOB = "job_" + "0" * 26
MIB = 1 << 20
TIB = 1 << 40
SECONDS = 120


def mostly_holes(file: Path, size: int) -> Path:
    """Make a file of ``size`` bytes with something at both ends."""
    with file.open("wb") as out:
        out.write(os.urandom(MIB))
        out.seek(size - MIB)
        out.write(os.urandom(MIB))
    return file


def ends(file: Path) -> tuple[int, bytes, bytes]:
    with file.open("rb") as given:
        first = given.read(MIB)
        given.seek(-MIB, os.SEEK_END)
        return file.stat().st_size, first, given.read()


def taken(file: Path) -> int:
    return file.stat().st_blocks * 512


def test_a_tebibyte_of_holes_goes_to_a_site_and_comes_back(trio: Trio) -> None:
    """Kills: a job that is refused, or a result, for room that nobody needs."""
    given = mostly_holes(trio.home / "given", TIB)
    assert shutil.disk_usage(trio.home).total < TIB
    manifest = trio.site / "manifest.toml"
    manifest.write_text(manifest.read_text().replace('"128 MiB"', '"2 TiB"'))
    with trio.connect() as client:
        job = client.submit(trio.spec("one", source=given))
        assert job.result(trio.home / "got", timeout=SECONDS).state == "succeeded"
    back = trio.home / "got" / "out" / "in" / "given"
    assert ends(back) == ends(given)
    assert taken(back) < 8 * MIB


@pytest.fixture
def ended(tmp_path: Path) -> Place:
    return LocalWorkplace(tmp_path / "jobs", spare_bytes=0).prepare(JOB, 1)


def leaving(place: Place, room: int) -> LocalWorkplace:
    """Return the workplace as it is with so much room for jobs."""
    base = Path(place.work_dir).parents[2]
    return LocalWorkplace(base, spare_bytes=shutil.disk_usage(base).free - room)


def test_a_copy_of_outputs_needs_the_room_of_what_it_writes(ended: Place) -> None:
    work = Path(ended.work_dir)
    mostly_holes(work / "holes", 32 * MIB)
    workplace = leaving(ended, 24 * MIB)
    found = workplace.collect(ended).found
    assert sum(file.size for file in found) == 32 * MIB
    assert workplace.stage(ended, found, None).tree.size == 32 * MIB
    (work / "full").write_bytes(os.urandom(28 * MIB))
    with pytest.raises(StorageFull, match=r"site\.disk_full"):
        leaving(ended, 24 * MIB).stage(ended, workplace.collect(ended).found, None)


def test_a_copy_that_finds_no_room_after_all_does_not_keep_what_it_took(
    ended: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills while it is made. Kills: half a copy that nobody can use, for a month."""
    (Path(ended.work_dir) / "one").write_bytes(os.urandom(MIB))
    workplace = leaving(ended, 64 * MIB)
    plain = os.write

    def write(fd: int, data: bytes) -> int:
        if "staging" in str(Path(f"/proc/self/fd/{fd}").readlink()):
            raise OSError(errno.ENOSPC, "")
        return plain(fd, data)

    with monkeypatch.context() as full:
        full.setattr(os, "write", write)
        with pytest.raises(StorageFull):
            workplace.stage(ended, workplace.collect(ended).found, None)
    assert not Path(ended.staging_dir).exists()
    assert isinstance(workplace.collect(ended).found[0], Found)
    assert workplace.stage(ended, workplace.collect(ended).found, None).tree.size == MIB


@pytest.fixture
def small(tmp_path: Path) -> Iterator[BareWorld]:
    """A bare site with a disk of 24 MiB for its jobs."""
    (tmp_path / "base").mkdir(mode=0o700)
    disk = SmallDisk(tmp_path / "base")
    with bare_world(tmp_path, within=disk.before(24 * MIB)) as made:
        made.program("copy", "cp --sparse=always in.dat out.dat")
        yield made


def test_holes_stay_holes_at_a_bare_site(small: BareWorld, tmp_path: Path) -> None:
    """There and back again: twice 64 MiB on a disk of 24, and 4 MiB of ours."""
    given = mostly_holes(tmp_path / "in.dat", 64 * MIB)
    with small.client() as client:
        job = client.submit(JobSpec(site=SITE, command="copy", inputs=[given], outputs=["out.dat"]))
        assert job.result(tmp_path / "got", timeout=SECONDS).state == "succeeded"
    back = tmp_path / "got" / "out.dat"
    assert ends(back) == ends(given)
    assert taken(back) < 8 * MIB
