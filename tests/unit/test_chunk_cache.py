"""What a site keeps of inputs: less line, never other bytes, never across submitters."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sekisho.adapters.chunk_cache import ChunkCache
from sekisho.adapters.durable import TEMPORARY
from sekisho.domain.errors import IntegrityError, Unreachable
from sekisho.wire.frames import Chunk, Sound, digest_of, verified
from tests.world import a_chunk

PLENTY = 1 << 20


class Line:
    """The broker's chunks, and what of them was asked for."""

    def __init__(self, *texts: str) -> None:
        self.data = dict(a_chunk(text) for text in texts)
        self.asked: list[Chunk] = []
        self.breaks_after: int | None = None
        self.lock = threading.Lock()

    def fetch(self, chunks: Sequence[Chunk]) -> Iterator[Sound]:
        for number, chunk in enumerate(chunks):
            if number == self.breaks_after:
                raise Unreachable(why="cut")
            with self.lock:
                self.asked.append(chunk)
            yield verified((chunk, self.data[chunk]))


def a_cache(root: Path, max_bytes: int = PLENTY, spare_bytes: int = 0) -> ChunkCache:
    return ChunkCache(root / "cache", max_bytes, spare_bytes=spare_bytes)


def fetch(cache: ChunkCache, line: Line, submitter: str = "alice") -> dict[Chunk, bytes]:
    return dict(cache.over(line, submitter).fetch(list(line.data)))


def kept(root: Path) -> list[Path]:
    return [path for path in (root / "cache").rglob("*") if path.is_file()]


def test_a_second_job_asks_the_line_for_nothing(tmp_path: Path) -> None:
    line, cache = Line("a", "b", "c"), a_cache(tmp_path)
    assert fetch(cache, line) == line.data
    assert fetch(cache, line) == line.data
    assert sorted(line.asked) == sorted(line.data)


def test_what_was_kept_outlives_the_agent(tmp_path: Path) -> None:
    line = Line("a", "b")
    fetch(a_cache(tmp_path), line)
    assert fetch(a_cache(tmp_path), line) == line.data
    assert len(line.asked) == 2


@pytest.mark.parametrize("other", ["bob", "alice/", "Alice", ".."])
def test_nothing_is_kept_across_submitters(tmp_path: Path, other: str) -> None:
    """Kills: one folder for all, which would tell bob that alice has a file."""
    line, cache = Line("a"), a_cache(tmp_path)
    fetch(cache, line)
    fetch(cache, line, other)
    assert len(line.asked) == 2


def test_for_nobody_nothing_is_kept(tmp_path: Path) -> None:
    line, cache = Line("a"), a_cache(tmp_path)
    fetch(cache, line, "")
    fetch(cache, line, "")
    assert len(line.asked) == 2
    assert kept(tmp_path) == []


@pytest.mark.parametrize("damage", [b"", b"b", b"a and more"])
def test_damage_is_fetched_anew_and_never_delivered(tmp_path: Path, damage: bytes) -> None:
    line, cache = Line("a"), a_cache(tmp_path)
    fetch(cache, line)
    (file,) = kept(tmp_path)
    file.write_bytes(damage)
    assert fetch(cache, line) == line.data
    assert len(line.asked) == 2
    assert file.read_bytes() == b"a"


@pytest.mark.time_limit(30)
def test_a_list_that_lies_about_the_length_of_what_is_kept_is_told(tmp_path: Path) -> None:
    """Kills: an agent that looks for it for ever, as nobody is fetching it and it is not right."""
    line, cache = Line("a"), a_cache(tmp_path)
    (chunk,) = fetch(cache, line)
    with pytest.raises(IntegrityError, match=r"chunk\.size"):
        list(cache.over(line, "alice").fetch([Chunk(chunk.digest, 2)]))
    assert fetch(cache, line) == line.data
    assert line.asked == [chunk]


def test_a_kept_file_that_somebody_removed_is_fetched_anew(tmp_path: Path) -> None:
    line, cache = Line("a"), a_cache(tmp_path)
    fetch(cache, line)
    kept(tmp_path)[0].unlink()
    assert fetch(cache, line) == line.data


def test_the_least_recently_used_goes_first_also_after_a_restart(tmp_path: Path) -> None:
    old, used, new = Line("1111"), Line("2222"), Line("3333")
    cache = a_cache(tmp_path, 8)
    for line in (old, used, old):
        fetch(cache, line)
    for number, path in enumerate(sorted(kept(tmp_path), key=lambda path: path.stat().st_mtime_ns)):
        os.utime(path, (number, number))  # apart, however coarse the file system's clock is
    again = a_cache(tmp_path, 8)
    fetch(again, new)
    for line in (old, used):
        line.asked.clear()
        fetch(again, line)
    assert (old.asked, used.asked) == ([], list(used.data))


def test_what_was_used_again_outlives_what_was_not_while_the_agent_runs(tmp_path: Path) -> None:
    """Kills: a mesh that a sweep uses all the time, and that goes because it came first."""
    old, used, new = Line("1111"), Line("2222"), Line("3333")
    cache = a_cache(tmp_path, 8)
    for line in (old, used, old, new):
        fetch(cache, line)
    for line in (old, used):
        line.asked.clear()
        fetch(cache, line)
    assert (old.asked, used.asked) == ([], list(used.data))


def test_what_is_left_to_others_is_not_used_and_nothing_goes_for_what_cannot_stay(
    tmp_path: Path,
) -> None:
    small, large, cache = Line("111"), Line("4444"), a_cache(tmp_path, 8)
    fetch(cache, Line("55555"))
    cache.leave(5)
    assert kept(tmp_path) == []
    for line in (small, large, small, large):
        assert fetch(cache, line) == line.data
    assert (len(small.asked), len(large.asked)) == (1, 2)


def test_it_is_never_larger_than_it_may_be(tmp_path: Path) -> None:
    line = Line(*(f"chunk {n:02}" for n in range(50)))
    assert fetch(a_cache(tmp_path, 100), line) == line.data
    assert 90 < sum(path.stat().st_size for path in kept(tmp_path)) <= 100


def test_a_smaller_setting_takes_effect_at_the_next_start(tmp_path: Path) -> None:
    line = Line("a", "b")
    fetch(a_cache(tmp_path), line)
    assert fetch(a_cache(tmp_path, 0), line) == line.data
    assert kept(tmp_path) == []


def test_a_disk_with_little_room_is_left_alone(tmp_path: Path) -> None:
    line = Line("a")
    assert fetch(a_cache(tmp_path, spare_bytes=1 << 62), line) == line.data
    assert kept(tmp_path) == []


def test_a_cache_that_cannot_be_written_costs_only_the_line(tmp_path: Path) -> None:
    line, cache = Line("a", "b"), a_cache(tmp_path)
    (tmp_path / "cache").write_text("not a directory")
    assert fetch(cache, line) == line.data
    assert fetch(cache, line) == line.data
    assert len(line.asked) == 4


def test_a_crash_leaves_nothing_behind(tmp_path: Path) -> None:
    line = Line("a")
    fetch(a_cache(tmp_path), line)
    half = kept(tmp_path)[0].with_name(f"{TEMPORARY}half")
    half.write_bytes(b"ha")
    fetch(a_cache(tmp_path), line)
    assert not half.exists()


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    fetch(a_cache(tmp_path), Line("a"))
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "cache").rglob("*")} == {0}


def test_what_came_before_a_cut_is_not_fetched_again(tmp_path: Path) -> None:
    line, cache = Line("a", "b", "c"), a_cache(tmp_path)
    line.breaks_after = 2
    with pytest.raises(Unreachable):
        fetch(cache, line)
    line.breaks_after = None
    assert fetch(cache, line) == line.data
    assert len(line.asked) == 3


def test_many_jobs_at_once_bring_each_chunk_over_the_line_once(tmp_path: Path) -> None:
    """Kills: looking before claiming, and a claim that is never given back."""
    line, cache = Line(*(str(n) for n in range(200))), a_cache(tmp_path)
    got: list[dict[Chunk, bytes]] = []
    start = threading.Barrier(6)

    def job() -> None:
        start.wait()
        got.append(fetch(cache, line))

    threads = [threading.Thread(target=job) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert got == [line.data] * 6
    assert sorted(line.asked) == sorted(line.data)


def test_a_job_whose_line_broke_leaves_its_claims_to_the_others(tmp_path: Path) -> None:
    line, cache = Line("a", "b"), a_cache(tmp_path)
    first = iter(cache.over(line, "alice").fetch(list(line.data)))
    next(first)
    got: list[dict[Chunk, bytes]] = []
    other = threading.Thread(target=lambda: got.append(fetch(cache, line)))
    other.start()
    first.close()  # type: ignore[attr-defined] # it is a generator
    other.join(30)
    assert got == [line.data]
    assert len(line.asked) == 2


def test_without_room_jobs_at_once_still_all_get_everything(tmp_path: Path) -> None:
    line, cache = Line(*(str(n) for n in range(50))), a_cache(tmp_path, 0)
    got: list[dict[Chunk, bytes]] = []
    threads = [threading.Thread(target=lambda: got.append(fetch(cache, line))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert got == [line.data] * 4


def test_keys_are_digests(tmp_path: Path) -> None:
    fetch(a_cache(tmp_path), Line("a"))
    (file,) = kept(tmp_path)
    assert file.name == digest_of(b"a")
    assert file.parts[-3] == digest_of(b"alice")
