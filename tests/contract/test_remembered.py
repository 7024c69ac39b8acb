"""What is remembered of files: only what is certain, and nothing that was spoiled."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from sekisho.adapters.chunks_memory import MemoryChunks
from sekisho.adapters.remembered_directory import RememberedDirectory
from sekisho.domain.errors import IntegrityError
from sekisho.domain.limits import MAX_DIGESTS
from sekisho.transfer.remembered import Look
from sekisho.transfer.send import send_tree
from sekisho.transfer.source import LocalTree, scan
from sekisho.wire.frames import Chunk, digest_of

LOOK = Look(1, 2, 3, 4, 5)
CHUNKS = [Chunk(digest_of(b"abc"), 3)]
OLD = 1_600_000_000


@pytest.fixture
def memory(tmp_path: Path) -> RememberedDirectory:
    return RememberedDirectory(tmp_path / "cache" / "chunks")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    place = tmp_path / "mesh.inp"
    place.write_bytes(os.urandom(1 << 20))
    return place


def test_what_is_kept_is_recalled_by_anybody_who_looks_there(
    memory: RememberedDirectory, tmp_path: Path
) -> None:
    assert memory.recall(LOOK) is None
    memory.keep(LOOK, CHUNKS)
    assert RememberedDirectory(tmp_path / "cache" / "chunks").recall(LOOK) == CHUNKS
    memory.forget(LOOK)
    assert memory.recall(LOOK) is None


@pytest.mark.parametrize("what", ["device", "inode", "size", "mtime_ns", "ctime_ns"])
def test_a_file_that_looks_otherwise_is_another_one(memory: RememberedDirectory, what: str) -> None:
    memory.keep(LOOK, CHUNKS)
    assert memory.recall(replace(LOOK, **{what: 99})) is None


def test_a_very_long_file_is_remembered_whole(memory: RememberedDirectory) -> None:
    many = CHUNKS * (2 * MAX_DIGESTS + 1)
    memory.keep(LOOK, many)
    assert memory.recall(LOOK) == many


def test_any_byte_that_changed_makes_it_forget(memory: RememberedDirectory, tmp_path: Path) -> None:
    memory.keep(LOOK, CHUNKS)
    (place,) = (tmp_path / "cache" / "chunks").iterdir()
    data = place.read_bytes()
    for at in range(len(data)):
        place.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert memory.recall(LOOK) is None
        place.write_bytes(data[:at])
        assert memory.recall(LOOK) is None


def test_a_place_where_nothing_can_be_kept_is_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    memory = RememberedDirectory(tmp_path / "file" / "below")
    memory.keep(LOOK, CHUNKS)
    memory.forget(LOOK)
    assert memory.recall(LOOK) is None


class Counting(RememberedDirectory):
    kept = 0

    def keep(self, look: Look, chunks: object) -> None:
        self.kept += 1
        super().keep(look, chunks)  # type: ignore[arg-type]


def test_a_file_just_written_is_not_remembered(tmp_path: Path, file: Path) -> None:
    memory = Counting(tmp_path / "cache")
    LocalTree(scan([("in", file)]), memory)
    assert memory.kept == 0
    look = Look.of(file.stat())
    assert look.settled(max(look.mtime_ns, look.ctime_ns) + 2_000_000_001)
    assert not look.settled(max(look.mtime_ns, look.ctime_ns) + 2_000_000_000)
    assert not replace(look, mtime_ns=OLD).settled(look.ctime_ns + 1)
    assert not replace(look, ctime_ns=OLD).settled(look.mtime_ns + 1)


def test_what_may_have_changed_while_it_was_read_is_not_remembered(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: the age of a file told after the reading, of a change that no time has shown."""
    ctime_ns = file.stat().st_ctime_ns
    for before, kept in ((1_000_000_000, 0), (3_000_000_000, 1)):
        clock, memory = Clock(ctime_ns + before), Counting(tmp_path / "cache")
        monkeypatch.setattr("sekisho.transfer.source.time", clock)
        LocalTree(scan([("in", file)]), memory, found=clock.found)
        assert clock.now > ctime_ns + 9_000_000_000
        assert memory.kept == kept


class Clock:
    """Goes on by a while with each chunk that is read."""

    def __init__(self, now: int) -> None:
        self.now = now

    def time_ns(self) -> int:
        return self.now

    def found(self, *_: object) -> None:
        self.now += 9_000_000_000


def test_a_remembered_file_is_not_read_again(memory: RememberedDirectory, file: Path) -> None:
    size = file.stat().st_size
    never = (Chunk("0" * 64, size // 2), Chunk("1" * 64, size // 2))
    memory.keep(Look.of(file.stat()), never)
    assert LocalTree(scan([("in", file)]), memory).tree.files[0].chunks == never


def test_what_is_remembered_of_another_size_is_not_believed(
    memory: RememberedDirectory, file: Path
) -> None:
    memory.keep(Look.of(file.stat()), [Chunk("0" * 64, 900_000)])
    assert LocalTree(scan([("in", file)]), memory).tree == LocalTree(scan([("in", file)])).tree


def test_a_file_that_changed_is_read_again(memory: RememberedDirectory, file: Path) -> None:
    memory.keep(Look.of(file.stat()), [Chunk("0" * 64, 900_000), *_rest(file, 900_000)])
    file.write_bytes(file.read_bytes())
    known = LocalTree(scan([("in", file)]))
    assert LocalTree(scan([("in", file)]), memory).tree == known.tree


def test_what_is_remembered_wrongly_is_found_out_when_sent_and_then_forgotten(
    memory: RememberedDirectory, file: Path
) -> None:
    memory.keep(Look.of(file.stat()), [Chunk("0" * 64, 900_000), *_rest(file, 900_000)])
    local, port = LocalTree(scan([("in", file)]), memory), MemoryChunks()
    with pytest.raises(IntegrityError, match=r"input\.changed"):
        send_tree(local.tree, local.read, port)
    again = LocalTree(scan([("in", file)]), memory)
    send_tree(again.tree, again.read, port)
    assert again.tree == LocalTree(scan([("in", file)])).tree


def _rest(file: Path, start: int) -> list[Chunk]:
    data = file.read_bytes()[start:]
    return [Chunk(digest_of(data), len(data))]
