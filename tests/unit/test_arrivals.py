"""Files that are hashed while they come: known when they are what was read, else not."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from sekisho.adapters.arrival import WORTH_BYTES, Arrivals
from sekisho.domain.files import RelPath
from sekisho.transfer.remembered import Look
from sekisho.transfer.source import LocalTree, Source
from tests.waiting import until

SIZE = 24 << 20
CONTENT = os.urandom(SIZE)


@pytest.fixture
def passing(tmp_path: Path) -> Path:
    (tmp_path / "coming").mkdir()
    return tmp_path / "coming"


def opened(file: Path) -> int:
    """Say how often this process has the file open."""
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # another thread has closed it
            count += link.readlink() == file
    return count


def bring(passing: Path, name: str, content: bytes = CONTENT) -> Path:
    """Do as rsync does: write under a passing name, then move to the place; return that."""
    half = passing / f"{name}.a1B2c3"
    place = passing.parent / name
    with half.open("wb", buffering=0) as out:
        out.write(content[: SIZE // 3])
        until(lambda: opened(half) == 2)
        out.write(content[SIZE // 3 :])
    os.utime(half, (1, 1))
    half.rename(place)
    return place


def tree_of(place: Path, arrivals: Arrivals | None = None) -> LocalTree:
    source = Source(RelPath.parse(place.name), str(place))
    return LocalTree([source]) if arrivals is None else LocalTree([source], arrivals)


@pytest.mark.parametrize("name", ["large", ".large", "a.b c"])
def test_what_came_is_known_as_whoever_reads_it_would_know_it(passing: Path, name: str) -> None:
    """Killed by: other cutting than at rest, or other bytes than the file's."""
    with Arrivals(passing, [(name, SIZE)]) as arrivals:
        place = bring(passing, name)
    assert arrivals.recall(Look.of(place.stat())) is not None
    assert tree_of(place, arrivals).tree == tree_of(place).tree


def test_one_after_the_other_is_known(passing: Path) -> None:
    with Arrivals(passing, [("one", SIZE), ("two", SIZE)]) as arrivals:
        places = [bring(passing, "one"), bring(passing, "two", CONTENT[::-1])]
    for place in places:
        assert arrivals.recall(Look.of(place.stat())) is not None
        assert tree_of(place, arrivals).tree == tree_of(place).tree


def test_what_has_not_come_whole_by_the_end_is_read_on_to_its_end(passing: Path) -> None:
    half = passing / "large.a1B2c3"
    with Arrivals(passing, [("large", SIZE)]) as arrivals:
        half.write_bytes(CONTENT)
        until(lambda: opened(half))
    assert tree_of(half, arrivals).tree == tree_of(half).tree


def change(place: Path) -> None:
    with place.open("r+b") as stream:
        stream.write(b"changed")


def replace(place: Path) -> None:
    place.unlink()
    place.write_bytes(CONTENT[::-1])
    os.utime(place, (1, 1))


@pytest.mark.parametrize("act", [change, replace])
def test_what_is_another_file_by_now_is_read(passing: Path, act: Callable[[Path], None]) -> None:
    with Arrivals(passing, [("large", SIZE)]) as arrivals:
        place = bring(passing, "large")
    act(place)
    assert tree_of(place, arrivals).tree == tree_of(place).tree


def test_a_file_that_was_begun_anew_is_not_taken_for_the_first_one(passing: Path) -> None:
    """As when its checksum was wrong: the first one goes, and another one gets its place."""
    with Arrivals(passing, [("large", SIZE)]) as arrivals:
        bring(passing, "large", CONTENT[::-1]).unlink()
        place = bring(passing, "large")
    assert tree_of(place, arrivals).tree == tree_of(place).tree


@pytest.mark.parametrize("told", [SIZE - 1, SIZE + 1])
def test_of_another_size_than_was_told_nothing_is_known(passing: Path, told: int) -> None:
    with Arrivals(passing, [("large", told)]) as arrivals:
        place = bring(passing, "large")
    assert arrivals.recall(Look.of(place.stat())) is None


def test_a_file_with_holes_is_read(passing: Path) -> None:
    half = passing / "large.a1B2c3"
    with Arrivals(passing, [("large", SIZE)]) as arrivals:
        with half.open("wb") as out:
            out.truncate(SIZE)
        until(lambda: opened(half))
    assert arrivals.recall(Look.of(half.stat())) is None


def test_names_that_stand_for_several_sizes_are_not_followed(passing: Path) -> None:
    with Arrivals(passing, [("large", SIZE), ("large", SIZE + 1), ("other", SIZE)]) as arrivals:
        (passing / "large.a1B2c3").write_bytes(CONTENT)
        bring(passing, "other")
    assert arrivals.recall(Look.of((passing / "large.a1B2c3").stat())) is None


def test_an_end_by_force_leaves_nothing_open(passing: Path) -> None:
    half = passing / "large.a1B2c3"
    half.write_bytes(CONTENT[: SIZE // 2])
    with suppress(KeyboardInterrupt), Arrivals(passing, [("large", SIZE)]):
        until(lambda: opened(half))
        raise KeyboardInterrupt
    assert not opened(half)


def test_small_files_are_left_to_whoever_looks(passing: Path) -> None:
    size = WORTH_BYTES - 1
    with Arrivals(passing, [("small", size)]) as arrivals:
        (passing / "small.a1B2c3").write_bytes(bytes(size))
    assert arrivals.recall(Look.of((passing / "small.a1B2c3").stat())) is None
