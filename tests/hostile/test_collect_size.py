"""Whatever a job leaves, looking at it ends soon and needs little memory."""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sekisho.adapters.workplace_local import LocalWorkplace
from sekisho.site.workplace import CollectCaps
from tests.hostile.yard import JOB, Yard


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


def test_a_sparse_tebibyte_is_measured_not_read(tmp_path: Path) -> None:
    yard = Yard(tmp_path, CollectCaps(max_file_bytes=1 << 30))
    with (yard.work / "huge").open("wb") as file:
        file.truncate(1 << 40)
    started = time.monotonic()
    assert yard.reasons() == {"huge": "too_large"}
    assert time.monotonic() - started < 2


WRITER = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
print(flush=True)
block = bytes(65536)
while os.fstat(fd).st_size < 1 << 30:
    os.write(fd, block)
"""


def test_a_file_that_never_stops_growing_is_withheld_in_bounded_time(yard: Yard) -> None:
    file = yard.work / "endless"
    file.write_bytes(bytes(1 << 20))
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(file)], stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None
        writer.stdout.readline()
        found = yard.collect().found
        seen = file.stat().st_size
        while file.stat().st_size == seen:
            assert writer.poll() is None
        staged = yard.workplace.stage(yard.place, found, None)
    finally:
        writer.kill()
        writer.communicate()
    assert staged.tree.files == ()
    assert [w.why for w in staged.withheld] == ["changed"]
    left = sum(p.stat().st_size for p in Path(yard.place.staging_dir).iterdir())
    assert left < 4096


def fill(directory: Path, count: int) -> None:
    here = os.open(directory, os.O_RDONLY)
    for number in range(count):
        os.close(os.open(f"f{number}", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


def name_often(directory: Path, count: int) -> None:
    """As `fill`, but the names are those of few files: quicker to make, and as many to look at."""
    here = os.open(directory, os.O_RDONLY)
    first = ""
    for number in range(count):
        if number % 60_000 == 0:  # a file system may bound the names of one file
            first = f"f{number}"
            os.close(os.open(first, os.O_CREAT | os.O_WRONLY, dir_fd=here))
        else:
            os.link(first, f"f{number}", src_dir_fd=here, dst_dir_fd=here)
    os.close(here)


def test_a_million_names_are_given_up_soon_and_in_little_memory(yard: Yard) -> None:
    name_often(yard.work, 1_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    collected = yard.collect()
    took = time.process_time() - started
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert (collected.found, collected.withheld) == ((), ())
    assert [dict(f.params) for f in collected.faults] == [{"why": "entries", "limit": 100_000}]
    assert took < 2
    assert grown < 50 * 1024  # KiB
    assert yard.workplace.purge(JOB)


def test_names_in_many_directories_are_counted_together(tmp_path: Path) -> None:
    yard = Yard(tmp_path, CollectCaps(max_entries=1000))
    for number in range(40):
        (yard.work / f"d{number}").mkdir()
        fill(yard.work / f"d{number}", 24)
    assert len(yard.collect().found) == 40 * 24  # with the directories: exactly the cap
    (yard.work / "one").touch()
    assert yard.collect().faults[0].code == "collect.over"


def test_the_bytes_of_all_names_are_bounded(tmp_path: Path) -> None:
    yard = Yard(tmp_path, CollectCaps(max_name_bytes=1000))
    for number in range(5):
        (yard.work / (f"{number}" * 200)).touch()
    assert len(yard.collect().found) == 5
    (yard.work / "6").touch()
    collected = yard.collect()
    assert dict(collected.faults[0].params) == {"why": "names", "limit": 1000}
    assert collected.found == ()


def test_a_walk_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    times = iter(range(1000))
    workplace = LocalWorkplace(
        tmp_path / "base", caps=CollectCaps(max_seconds=5), monotonic=lambda: float(next(times))
    )
    place = workplace.prepare(JOB, 1)
    fill(Path(place.work_dir), 100)
    assert dict(workplace.collect(place).faults[0].params) == {"why": "time", "limit": 5}
    assert next(times) < 20


def test_reasons_beyond_the_cap_are_counted_not_kept(tmp_path: Path) -> None:
    yard = Yard(tmp_path, CollectCaps(max_withheld=3))
    for number in range(10):
        (yard.work / f"l{number}").symlink_to("x")
    collected = yard.collect()
    assert (len(collected.withheld), collected.unlisted) == (3, 7)


def deepen(work: Path, levels: int) -> None:
    """Make a chain of directories far beyond the longest path, with a file at the bottom."""
    here = os.open(work, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


def test_a_tree_ten_thousand_deep_is_left_soon_and_removed_whole(yard: Yard) -> None:
    deepen(yard.work, 10_000)
    (yard.work / "honest").write_bytes(b"1")
    started = time.process_time()
    collected = yard.collect()
    assert time.process_time() - started < 2
    assert [str(f.path) for f in collected.found] == ["honest"]
    assert [w.why for w in collected.withheld] == ["too_deep"]
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(place.name) for place in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 100, limit[1]))
    try:
        assert yard.workplace.purge(JOB)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert [p.name for p in (yard.work.parents[2]).iterdir()] == [".trash"]
    assert list((yard.work.parents[2] / ".trash").iterdir()) == []
