"""Fetching a tree: resuming, damage, what is in the way, and room."""

from __future__ import annotations

import errno
import os
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sekisho.adapters.chunks_memory import MemoryChunks
from sekisho.domain.errors import (
    Conflict,
    IntegrityError,
    NotFound,
    SekishoError,
    StorageFull,
    SyncFailed,
    TooLarge,
    Unreachable,
    UsageError,
)
from sekisho.domain.files import RelPath
from sekisho.domain.limits import CHUNK_BYTES, MAX_CHUNK_BYTES, MIB, SHORT_LIST_BYTES
from sekisho.transfer.fetch import Caps, fetch_files, fetch_index, fetch_tree
from sekisho.transfer.part import Part
from sekisho.transfer.port import Given
from sekisho.transfer.send import send_tree
from sekisho.transfer.source import LocalTree, scan
from sekisho.transfer.tree import Tree, TreeFile, check_length
from sekisho.wire.envelope import ChunkRef, TreeRef
from sekisho.wire.frames import Chunk, Sound

BIG = os.urandom(3 * CHUNK_BYTES + 17)


class FaultyChunks(MemoryChunks):
    """Gives at most `allowance` chunks, counting them, then the line is cut."""

    def __init__(self) -> None:
        super().__init__()
        self.allowance = 1_000_000
        self.fetched: list[Chunk] = []

    def fetch(self, chunks: Sequence[Chunk]) -> Iterator[Sound]:
        for sound in super().fetch(chunks):
            if len(self.fetched) >= self.allowance:
                raise Unreachable(why="cut")
            self.fetched.append(sound[0])
            yield sound


@pytest.fixture
def port() -> FaultyChunks:
    return FaultyChunks()


@pytest.fixture
def tree(tmp_path: Path, port: FaultyChunks) -> Tree:
    here = tmp_path / "here"
    (here / "sub").mkdir(parents=True)
    (here / "big").write_bytes(BIG)
    (here / "sub" / "small").write_bytes(b"small")
    local = LocalTree(scan([("", here)]))
    send_tree(local.tree, local.read, port)
    return local.tree


def test_a_cut_fetch_goes_on_where_it_stopped(
    tmp_path: Path, port: FaultyChunks, tree: Tree
) -> None:
    there = tmp_path / "there"
    port.allowance = 2
    with pytest.raises(Unreachable):
        fetch_files(tree, port, there)
    assert not (there / "big").exists()
    first, port.fetched, port.allowance = port.fetched, [], 1_000
    fetch_files(tree, port, there)
    assert (there / "big").read_bytes() == BIG
    assert not set(first) & set(port.fetched)
    assert len(first) + len(port.fetched) == len(tree.chunks())


def test_what_is_in_place_is_not_fetched_again(
    tmp_path: Path, port: FaultyChunks, tree: Tree
) -> None:
    fetch_files(tree, port, tmp_path / "there")
    port.fetched = []
    fetch_files(tree, port, tmp_path / "there")
    assert port.fetched == []


def test_a_crash_between_two_renames_is_finished_by_the_next_fetch(
    tmp_path: Path, port: FaultyChunks, tree: Tree
) -> None:
    there = tmp_path / "there"
    with Part.beside(there, tree) as part:
        part.lacking()
        for chunk, data in port.fetch(tree.chunks()):
            part.write(chunk, data)
        (there / f".sekisho-{tree.digest[:16]}.part" / "0").rename(there / "big")
    port.fetched = []
    fetch_files(tree, port, there)
    assert port.fetched == []
    assert (there / "big").read_bytes() == BIG
    assert sorted(p.name for p in there.iterdir()) == ["big", "sub"]


def test_damage_of_a_part_is_found_and_fetched_again(
    tmp_path: Path, port: FaultyChunks, tree: Tree
) -> None:
    there = tmp_path / "there"
    port.allowance = 3
    with pytest.raises(Unreachable):
        fetch_files(tree, port, there)
    part = there / f".sekisho-{tree.digest[:16]}.part" / "0"
    with part.open("r+b") as file:
        file.write(b"damage")
    port.allowance, port.fetched = 1_000, []
    fetch_files(tree, port, there)
    assert (there / "big").read_bytes() == BIG
    assert tree.files[0].chunks[0] in port.fetched


def test_what_follows_the_end_of_a_part_is_cut_off(
    tmp_path: Path, port: FaultyChunks, tree: Tree
) -> None:
    """Kills: a look at what should be there, and none at what should not."""
    there = tmp_path / "there"
    with Part.beside(there, tree) as part:
        part.lacking()
        for chunk, data in port.fetch(tree.chunks()):
            part.write(chunk, data)
    with (there / f".sekisho-{tree.digest[:16]}.part" / "0").open("ab") as file:
        file.write(b"more")
    fetch_files(tree, port, there)
    assert (there / "big").read_bytes() == BIG


def test_a_file_in_place_that_has_another_name_too_is_replaced(
    tmp_path: Path, port: FaultyChunks, tree: Tree
) -> None:
    """Kills: a result that changes when somebody writes to what it shares its bytes with."""
    there = tmp_path / "there"
    for name in ("big", "sub/small"):
        fetch_files(tree, port, there)
        (tmp_path / "shared").unlink(missing_ok=True)
        (tmp_path / "shared").hardlink_to(there / name)
        fetch_files(tree, port, there)
        (tmp_path / "shared").write_bytes(b"changed")
    assert (there / "big").read_bytes() == BIG
    assert (there / "sub" / "small").read_bytes() == b"small"


def test_what_follows_the_end_of_a_file_in_place_is_no_part_of_the_result(tmp_path: Path) -> None:
    """Kills: a result that is what was sent, and then what somebody has added to an earlier one."""
    here, there, port = tmp_path / "here", tmp_path / "there", MemoryChunks()
    here.mkdir()
    contents = {"big": BIG, "small": b"small", "empty": b""}
    for name, data in contents.items():
        (here / name).write_bytes(data)
    local = LocalTree(scan([("", here)]))
    send_tree(local.tree, local.read, port)
    fetch_files(local.tree, port, there)
    for name in contents:
        with (there / name).open("ab") as grown:
            grown.write(b"more")
    fetch_files(local.tree, port, there)
    assert {name: (there / name).read_bytes() for name in contents} == contents


def test_a_part_folder_of_somebody_else_is_not_used(
    tmp_path: Path, port: FaultyChunks, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    with pytest.raises(Conflict, match=r"fetch\.blocked"):
        fetch_files(tree, port, tmp_path / "there")


class Giving(MemoryChunks):
    """Gives each file of a machine's own: these bytes, with this word."""

    def __init__(self, data: bytes, word: Given) -> None:
        super().__init__()
        self._data, self._word = data, word

    def give(self, path: RelPath, folder: int, name: str) -> Given:  # noqa: ARG002 (any file)
        fd = os.open(name, os.O_WRONLY | os.O_TRUNC, dir_fd=folder)
        os.write(fd, self._data)
        os.close(fd)
        return self._word


@pytest.mark.parametrize("word", [Given.SOUND, Given.UNSEEN])
@pytest.mark.parametrize("data", [b"", BIG[:-1], BIG + b"x"])
def test_a_file_that_is_given_with_another_size_is_not_believed(
    tmp_path: Path, data: bytes, word: Given
) -> None:
    """Kills: half a file of this machine's own, said to be sound, taken for the result."""
    here, there, port = tmp_path / "here", tmp_path / "there", Giving(data, word)
    here.mkdir()
    (here / "big").write_bytes(BIG)
    local = LocalTree(scan([("", here)]))
    send_tree(local.tree, local.read, port)
    fetch_files(local.tree, port, there)
    assert (there / "big").read_bytes() == BIG


def test_after_a_sync_that_failed_nothing_of_it_is_believed(
    tmp_path: Path, port: FaultyChunks, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: bytes that only the memory of a machine has, taken for what its disk holds."""

    def failing(_folder: int, _names: Sequence[str]) -> None:
        raise OSError(errno.EIO, "the disk fails")

    with monkeypatch.context() as disk:
        disk.setattr("sekisho.transfer.part.sync_files", failing)
        with pytest.raises(SyncFailed):
            fetch_files(tree, port, tmp_path / "there")
    assert not (tmp_path / "there" / "big").exists()
    port.fetched = []
    fetch_files(tree, port, tmp_path / "there")
    assert sorted(port.fetched) == sorted(tree.chunks())


def test_a_file_of_the_same_name_is_replaced_as_a_whole(
    tmp_path: Path, port: FaultyChunks, tree: Tree
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "big").write_bytes(b"older")
    held = (there / "big").open("rb")
    fetch_files(tree, port, there)
    assert held.read() == b"older"
    held.close()
    assert (there / "big").read_bytes() == BIG


def test_a_link_with_the_name_of_a_file_is_replaced_not_followed(
    tmp_path: Path, port: FaultyChunks, tree: Tree
) -> None:
    there, outside = tmp_path / "there", tmp_path / "outside"
    there.mkdir()
    outside.write_bytes(b"mine")
    (there / "big").symlink_to(outside)
    fetch_files(tree, port, there)
    assert outside.read_bytes() == b"mine"
    assert not (there / "big").is_symlink()


def test_a_link_in_place_of_a_folder_is_refused_and_nothing_outside_changes(
    tmp_path: Path, port: FaultyChunks, tree: Tree
) -> None:
    there, outside = tmp_path / "there", tmp_path / "outside"
    there.mkdir()
    outside.mkdir()
    (there / "sub").symlink_to(outside)
    with pytest.raises(Conflict, match=r"fetch\.blocked"):
        fetch_files(tree, port, there)
    assert list(outside.iterdir()) == []


def test_a_folder_in_place_of_a_file_is_refused(
    tmp_path: Path, port: FaultyChunks, tree: Tree
) -> None:
    (tmp_path / "there" / "big").mkdir(parents=True)
    with pytest.raises(Conflict, match=r"fetch\.blocked"):
        fetch_files(tree, port, tmp_path / "there")


@pytest.mark.parametrize("kind", ["link", "open"])
def test_a_part_folder_that_is_not_ours_alone_is_not_used(
    tmp_path: Path, port: FaultyChunks, tree: Tree, kind: str
) -> None:
    there, trap = tmp_path / "there", tmp_path / "trap"
    there.mkdir()
    trap.mkdir()
    (trap / "0").write_bytes(b"victim")
    part = there / f".sekisho-{tree.digest[:16]}.part"
    if kind == "link":
        part.symlink_to(trap)
    else:
        part.mkdir()
        part.chmod(0o777)
    with pytest.raises(SekishoError, match=r"fetch\.(blocked|io)"):
        fetch_files(tree, port, there)
    assert (trap / "0").read_bytes() == b"victim"


def test_two_fetches_of_one_tree_to_one_place_do_not_mix(
    tmp_path: Path, port: FaultyChunks, tree: Tree
) -> None:
    with (
        Part.beside(tmp_path / "there", tree),
        pytest.raises(Conflict, match=r"fetch\.busy"),
    ):
        fetch_files(tree, port, tmp_path / "there")


def test_a_chunk_that_was_not_asked_for_is_refused(
    tmp_path: Path, port: FaultyChunks, tree: Tree
) -> None:
    class Pushy(MemoryChunks):
        def fetch(self, chunks: Sequence[Chunk]) -> Iterator[Sound]:
            yield from port.fetch(chunks)
            yield from port.fetch(chunks[:1])

    with pytest.raises(IntegrityError, match=r"chunk\.unexpected"):
        fetch_files(tree, Pushy(), tmp_path / "there")


def test_a_port_that_gives_too_little_is_found_out(
    tmp_path: Path, port: FaultyChunks, tree: Tree
) -> None:
    class Stingy(MemoryChunks):
        def fetch(self, chunks: Sequence[Chunk]) -> Iterator[Sound]:
            yield from port.fetch(chunks[1:])

    with pytest.raises(IntegrityError, match=r"chunk\.missing"):
        fetch_files(tree, Stingy(), tmp_path / "there")
    with pytest.raises(IntegrityError, match=r"chunk\.missing"):
        fetch_index(tree.ref(), Stingy())


def test_a_tree_above_the_caps_is_refused_before_anything_is_written(
    tmp_path: Path, port: FaultyChunks, tree: Tree
) -> None:
    with pytest.raises(TooLarge, match=r"tree\.too_many_files"):
        fetch_tree(tree.ref(), port, tmp_path / "there", caps=Caps(max_files=1))
    with pytest.raises(TooLarge, match=r"tree\.too_large"):
        fetch_tree(tree.ref(), port, tmp_path / "there", caps=Caps(max_bytes=tree.size - 1))
    assert not (tmp_path / "there").exists()
    assert port.fetched == []


def test_a_list_too_long_to_hold_is_refused_by_its_announced_length(port: FaultyChunks) -> None:
    pieces = [ChunkRef("0" * 64, CHUNK_BYTES)] * 600
    ref = TreeRef(digest="0" * 64, files=1, size=1, index=pieces)
    with pytest.raises(TooLarge, match=r"tree\.too_large"):
        fetch_index(ref, port)


def test_a_list_longer_than_any_of_so_much_is_refused_before_it_is_fetched(
    port: FaultyChunks,
) -> None:
    """Kills: bytes cut one by one, each of which would cost hundreds of those who read the list."""
    index = [ChunkRef("0" * 64, CHUNK_BYTES)] * 4
    for size, refused in ((CHUNK_BYTES, UsageError), (64 * MIB, NotFound)):
        with pytest.raises(refused) as caught:
            fetch_index(TreeRef(digest="0" * 64, files=1, size=size, index=index), port)
        assert caught.value.code == ("tree.invalid" if refused is UsageError else "chunk.not_found")


@pytest.mark.parametrize("character", ["a", '"', "字"])
def test_no_list_of_files_with_long_names_is_too_long(character: str) -> None:
    """Kills: a bound below what a list of ours can be."""
    folder = "/".join([character * (200 // len(character.encode()))] * 5)
    chunk = Chunk("0" * 64, 1)
    files = [TreeFile(RelPath.parse(f"{folder}/{n:07}"), False, 1, (chunk,)) for n in range(2000)]
    tree = Tree(tuple(files))
    assert len(tree.text) > 2 * SHORT_LIST_BYTES
    check_length(tree.ref())


def test_a_list_is_read_without_being_held_again_and_again() -> None:
    """Kills: the list, its lines, what they say and the list made anew, all at the same time."""
    folder = "/".join(["a" * 200] * 5)
    named = [RelPath.parse(f"{folder}/{n:07}") for n in range(10_000)]
    tree = Tree(
        tuple(TreeFile(name, False, 1, (Chunk(f"{n:064x}", 1),)) for n, name in enumerate(named))
    )
    port = MemoryChunks()
    pieces = dict(tree.index())
    port.missing(list(pieces))
    port.send(pieces.items())
    ref = tree.ref()
    tracemalloc.start()
    try:
        assert len(fetch_index(ref, port).files) == len(named)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(tree.text)
    finally:
        tracemalloc.stop()


def test_a_list_that_is_not_there_is_not_found(tree: Tree) -> None:
    with pytest.raises(NotFound):
        fetch_index(tree.ref(), MemoryChunks())


def test_a_tree_larger_than_the_disk_is_refused_before_it_is_fetched(tmp_path: Path) -> None:
    room = os.statvfs(tmp_path)
    chunks = (Chunk("0" * 64, MAX_CHUNK_BYTES),) * (
        2 * room.f_bavail * room.f_frsize // MAX_CHUNK_BYTES + 2
    )
    size = MAX_CHUNK_BYTES * len(chunks)
    files = (TreeFile(RelPath.parse("huge"), executable=False, size=size, chunks=chunks),)
    port = FaultyChunks()
    with pytest.raises(StorageFull, match=r"fetch\.disk_full"):
        fetch_files(Tree(files), port, tmp_path / "there")
    assert port.fetched == []


def test_a_hole_takes_no_room_and_no_time(tmp_path: Path) -> None:
    here = tmp_path / "sparse"
    with here.open("wb") as file:
        file.truncate(64 * MAX_CHUNK_BYTES)
    port = FaultyChunks()
    local = LocalTree(scan([("sparse", here)]))
    send_tree(local.tree, local.read, port)
    fetch_files(local.tree, port, tmp_path / "there")
    made = (tmp_path / "there" / "sparse").stat()
    assert (made.st_size, made.st_blocks, port.fetched) == (64 * MAX_CHUNK_BYTES, 0, [])


def test_progress_never_falls_and_ends_at_the_total(
    tmp_path: Path, port: FaultyChunks, tree: Tree
) -> None:
    seen: list[tuple[int, int]] = []
    fetch_files(tree, port, tmp_path / "there", lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (tree.size, tree.size)
