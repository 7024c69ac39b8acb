"""Small files that share chunks: on the way, in the list, at the receiver."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sekisho.adapters.chunks_memory import MemoryChunks
from sekisho.domain.errors import IntegrityError, Unreachable, UsageError
from sekisho.domain.files import RelPath
from sekisho.domain.limits import MAX_CHUNK_BYTES
from sekisho.transfer.fetch import fetch_files
from sekisho.transfer.pack import SMALL_BYTES
from sekisho.transfer.send import send_tree
from sekisho.transfer.source import LocalTree, scan
from sekisho.transfer.tree import Tree, TreeFile, read_tree
from sekisho.wire.frames import Chunk, Sound

NUMBER = 500
SIZE = 10 << 10


class CountingChunks(MemoryChunks):
    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[Chunk] = []
        self.allowance = 1_000_000

    def fetch(self, chunks: Sequence[Chunk]) -> Iterator[Sound]:
        for sound in super().fetch(chunks):
            if len(self.fetched) >= self.allowance:
                raise Unreachable(why="cut")
            self.fetched.append(sound[0])
            yield sound


def written(place: Path, number: int = NUMBER) -> dict[str, bytes]:
    files = {f"{n % 7}/{n}": os.urandom(SIZE) for n in range(number)}
    for name, data in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    return files


def local_of(place: Path) -> LocalTree:
    return LocalTree(scan([("", place)]))


def there(place: Path) -> dict[str, bytes]:
    found = (p for p in place.rglob("*") if p.is_file())
    return {str(p.relative_to(place)): p.read_bytes() for p in found}


def test_many_small_files_are_few_chunks_and_arrive_whole(tmp_path: Path) -> None:
    files = written(tmp_path / "here")
    (tmp_path / "here" / "0" / "large").write_bytes(large := os.urandom(2 * SMALL_BYTES))
    (tmp_path / "here" / "empty").touch()
    local, port = local_of(tmp_path / "here"), MemoryChunks()
    assert len(local.tree.chunks()) < NUMBER / 10
    ref = send_tree(local.tree, local.read, port)
    assert read_tree(local.tree.text, ref) == local.tree
    fetch_files(local.tree, port, tmp_path / "there")
    assert there(tmp_path / "there") == files | {"0/large": large, "empty": b""}


@pytest.mark.parametrize("change", ["changed", "removed", "added"])
def test_a_change_of_one_small_file_leaves_the_other_packs_alone(
    tmp_path: Path, change: str
) -> None:
    written(tmp_path)
    before = set(local_of(tmp_path).tree.chunks())
    match change:
        case "changed":
            (tmp_path / "3" / "10").write_bytes(os.urandom(SIZE))
        case "removed":
            (tmp_path / "3" / "10").unlink()
        case _:
            (tmp_path / "3" / "100000").write_bytes(os.urandom(SIZE))
    new = set(local_of(tmp_path).tree.chunks()) - before
    assert len(before) > 5
    assert sum(chunk.size for chunk in new) <= 2 * MAX_CHUNK_BYTES


def test_a_cut_between_packs_loses_none_that_arrived(tmp_path: Path) -> None:
    files = written(tmp_path / "here")
    local, port = local_of(tmp_path / "here"), CountingChunks()
    send_tree(local.tree, local.read, port)
    port.allowance = 3
    with pytest.raises(Unreachable):
        fetch_files(local.tree, port, tmp_path / "there")
    first, port.fetched, port.allowance = port.fetched, [], 1000
    fetch_files(local.tree, port, tmp_path / "there")
    assert not set(first) & set(port.fetched)
    assert there(tmp_path / "there") == files


def test_names_that_a_crash_gave_to_half_a_pack_do_not_make_it_travel_again(
    tmp_path: Path,
) -> None:
    written(tmp_path / "here", 20)
    local, port = local_of(tmp_path / "here"), CountingChunks()
    send_tree(local.tree, local.read, port)
    result = tmp_path / "there"
    fetch_files(local.tree, port, result)
    part = result / f".sekisho-{local.tree.digest[:16]}.part"
    part.mkdir(mode=0o700)
    for number, file in enumerate(local.tree.files):
        if number % 2:
            result.joinpath(*file.path.parts).rename(part / str(number))
    port.fetched = []
    fetch_files(local.tree, port, result)
    assert port.fetched == []
    assert there(result) == there(tmp_path / "here")


@pytest.mark.parametrize("damage", [b"", b"x", os.urandom(SIZE), os.urandom(SIZE + 1)])
def test_a_damaged_file_of_a_pack_is_found_and_put_right(tmp_path: Path, damage: bytes) -> None:
    files = written(tmp_path / "here", 20)
    local, port = local_of(tmp_path / "here"), CountingChunks()
    send_tree(local.tree, local.read, port)
    part = tmp_path / "there" / f".sekisho-{local.tree.digest[:16]}.part"
    part.mkdir(mode=0o700, parents=True)
    (part / "5").write_bytes(damage)
    fetch_files(local.tree, port, tmp_path / "there")
    assert there(tmp_path / "there") == files


def test_a_byte_that_moved_from_one_file_of_a_pack_to_the_next_is_found(tmp_path: Path) -> None:
    """Kills: files that are right together, and each of them wrong."""
    here, result = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    for name, data in (("a", b"12"), ("b", b"34")):
        (here / name).write_bytes(data)
    local, port = local_of(here), CountingChunks()
    send_tree(local.tree, local.read, port)
    fetch_files(local.tree, port, result)
    (result / "a").write_bytes(b"123")
    (result / "b").write_bytes(b"4")
    fetch_files(local.tree, port, result)
    assert there(result) == {"a": b"12", "b": b"34"}


def test_the_file_of_a_pack_that_changed_is_named(tmp_path: Path) -> None:
    written(tmp_path, 20)
    local = local_of(tmp_path)
    (tmp_path / "3" / "10").write_bytes(os.urandom(SIZE))
    with pytest.raises(IntegrityError, match=r"input\.changed.*'3/10'"):
        send_tree(local.tree, local.read, MemoryChunks())


PACK = Chunk("0" * 64, 10)


def shares(*parts: tuple[int, int]) -> tuple[TreeFile, ...]:
    return tuple(
        TreeFile(RelPath.parse(f"f{n}"), False, size, (PACK,), offset)
        for n, (offset, size) in enumerate(parts)
    )


@pytest.mark.parametrize(
    "parts",
    [
        [(0, 6)],  # the rest is nobody's
        [(4, 6)],
        [(0, 4), (6, 4)],
        [(0, 6), (4, 6)],  # two files in one place
        [(0, 6), (0, 6)],
        [(6, 4), (0, 6)],  # out of order
        [(0, 6), (6, 4), (6, 4)],
    ],
)
def test_files_that_overlap_in_a_pack_or_leave_gaps_are_refused(
    parts: list[tuple[int, int]],
) -> None:
    assert Tree(shares((0, 6), (6, 4))).packs == [(PACK, (0, 1))]
    with pytest.raises(UsageError, match=r"tree\.invalid"):
        Tree(shares(*parts))


@pytest.mark.parametrize(
    ("size", "chunks", "offset"),
    [
        (10, (PACK,), 1),  # beyond its end
        (4, (PACK, PACK), 0),
        (4, (Chunk("", 10),), 0),  # a part of a hole
        (0, (PACK,), 3),
        (21, (PACK, PACK), 0),
        (MAX_CHUNK_BYTES + 1, (Chunk("1" * 64, MAX_CHUNK_BYTES + 1),), 0),
        (10, (PACK, Chunk("1" * 64, 0)), 0),
        (10, (PACK, Chunk("", 0)), 0),
    ],
)
def test_a_file_that_is_not_what_its_chunks_make_up_is_refused(
    size: int, chunks: tuple[Chunk, ...], offset: int
) -> None:
    with pytest.raises(UsageError, match=r"tree\.invalid"):
        TreeFile(RelPath.parse("f"), False, size, chunks, offset)
