"""Early inputs on the site's disk: written once, believed only untouched, bounded, resumed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from sekisho.adapters.early_https import HttpsEarly
from sekisho.adapters.workplace_local import LocalWorkplace
from sekisho.domain.errors import Conflict, Refused, StorageFull, Unreachable
from sekisho.transfer.earlier import NOTHING_EARLIER, Begun, Earlier, folder_of
from sekisho.transfer.fetch import fetch_files
from sekisho.transfer.part import Part
from sekisho.transfer.source import LocalTree, scan
from sekisho.transfer.tree import Tree
from sekisho.wire.frames import Chunk, Sound
from sekisho.wire.v1 import Coming
from tests.world import an_id

MIB = 1 << 20
pytestmark = pytest.mark.anyio


@dataclass
class MemoryWay:
    """Stands for `EarlyWay`: ``here`` has arrived; what is asked, and what is fetched, is noted."""

    local: LocalTree
    here: set[Chunk] = field(default_factory=set)
    fetched: list[Chunk] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    fail_after: int | None = None

    def source(self, _coming: Coming) -> MemoryWay:
        return self

    async def arrived(self, _coming: Coming, chunks: Sequence[Chunk], least: int) -> list[Chunk]:
        assert 0 < least <= 32 * MIB
        self.asked.append(len(chunks))
        await anyio.lowlevel.checkpoint()
        return [chunk for chunk in chunks if chunk in self.here]

    def fetch(self, chunks: Sequence[Chunk]) -> Iterator[Sound]:
        index = dict(self.local.tree.index())
        for chunk in chunks:
            assert chunk in self.here
            if self.fail_after == len(self.fetched):
                raise Unreachable(why="cut")
            self.fetched.append(chunk)
            yield Sound((chunk, index.get(chunk) or self.local.content(chunk)))


class Room(LocalWorkplace):
    """A disk with as much room as the test says."""

    free = 1 << 40

    def free_bytes(self) -> int:
        return self.free


class World:
    """A sender's file, a site's disk, and what lies between."""

    def __init__(self, root: Path, size: int = 5 * MIB) -> None:
        self.given = b"".join(n.to_bytes(4, "big") * 64 for n in range(size // 256))
        source = root / "source"
        (source / "many").mkdir(parents=True)
        (source / "mesh.dat").write_bytes(self.given)
        (source / "empty").touch()
        for n in range(20):
            (source / "many" / str(n)).write_bytes(bytes([n]) * 1000)
        self.local = LocalTree(scan([("in", source)]))
        self.way: Any = MemoryWay(self.local)
        self.place = Room(root / "work", spare_bytes=0)
        self.early = HttpsEarly(self.way, self.place, breath_s=0)
        self.coming = Coming(job=an_id("job"), submitter="alice", request=b"")
        self.into = root / "into"
        self.into.mkdir()

    @property
    def tree(self) -> Tree:
        return self.local.tree

    @property
    def folder(self) -> Path:
        return self.place.early(self.coming.job) / folder_of(self.tree)

    def arrive(self, start: int = 0, end: int | None = None) -> None:
        self.way.here |= {*dict(self.tree.index()), *list(self.tree.chunks())[start:end]}

    async def fetch(self, **changes: Any) -> None:
        allow = changes.get("allow", lambda tree: tree)
        await self.early.fetch(self.coming, self.tree.ref(), allow)

    def stage(self) -> list[Chunk]:
        """Do what staging does; return what it had to fetch."""
        self.way.here |= set(self.tree.chunks())
        self.way.fetched.clear()
        earlier = self.early.give(self.coming.job, self.tree, self.into)
        fetch_files(self.tree, Begun(self.way, earlier), self.into)
        assert (self.into / "in" / "mesh.dat").read_bytes() == self.given
        assert (self.into / "in" / "many" / "7").read_bytes() == bytes([7]) * 1000
        assert (self.into / "in" / "empty").read_bytes() == b""
        return list(self.way.fetched)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_all_that_came_early_is_moved_not_fetched_again(world: World) -> None:
    world.arrive()
    await world.fetch()
    inode = max(world.folder.iterdir(), key=lambda file: file.stat().st_size).stat().st_ino
    assert world.stage() == []
    assert (world.into / "in" / "mesh.dat").stat().st_ino == inode  # written once


async def test_staging_fetches_only_the_rest(world: World) -> None:
    world.arrive(end=-2)
    with pytest.raises(Conflict, match="silent"):
        await world.fetch()
    assert world.stage() == list(world.tree.chunks())[-2:]


async def test_what_was_not_touched_is_not_read_again(world: World) -> None:
    world.arrive()
    await world.fetch()
    earlier = world.early.give(world.coming.job, world.tree, world.into)
    large = next(n for n, file in enumerate(world.tree.files) if file.size > MIB)
    with Part.beside(world.into, world.tree) as part:
        part.believe(Earlier(frozenset(), earlier.looks))  # nothing is sound: were it read, it was
        assert set(part.lacking()) == set(world.tree.files[large].chunks)


@pytest.mark.parametrize("keep_times", [False, True])
async def test_a_file_that_somebody_touched_is_read_and_mended(
    world: World, keep_times: bool
) -> None:
    world.arrive()
    await world.fetch()
    file = max(world.folder.iterdir(), key=lambda found: found.stat().st_size)
    seen = file.stat()
    with file.open("r+b") as opened:
        opened.seek(2 * MIB)
        opened.write(b"something else")
    if keep_times:
        os.utime(file, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert len(world.stage()) == 1


async def test_a_file_that_somebody_put_in_its_place_is_read_and_mended(world: World) -> None:
    world.arrive()
    await world.fetch()
    file = max(world.folder.iterdir(), key=lambda found: found.stat().st_size)
    size = file.stat().st_size
    file.unlink()
    file.write_bytes(b"0" * size)
    assert len(world.stage()) == len(world.tree.files[-1].chunks)


async def test_a_folder_that_is_gone_is_fetched_anew(world: World) -> None:
    world.arrive()
    await world.fetch()
    await world.early.drop(world.coming.job)
    assert set(world.stage()) == set(world.tree.chunks())
    assert world.early.give(world.coming.job, world.tree, world.into) is NOTHING_EARLIER


async def test_a_cut_fetch_goes_on_where_it_was(world: World) -> None:
    world.arrive()
    world.way.fail_after = 6
    with pytest.raises(Unreachable):
        await world.fetch()
    world.way.fail_after = None
    await world.fetch()
    contents = [chunk for chunk in world.way.fetched if chunk in set(world.tree.chunks())]
    assert len(contents) == len(set(contents)) == len(set(world.tree.chunks()))


async def test_a_fetch_that_is_broken_off_ends_at_once_and_goes_on_later(world: World) -> None:
    world.arrive(end=-2)
    with anyio.fail_after(30), anyio.CancelScope() as scope:
        world.way.arrived = _cancelling(world.way, scope)
        await world.fetch()
    assert scope.cancelled_caught
    del world.way.arrived
    assert set(world.stage()) < set(world.tree.chunks())


def _cancelling(way: MemoryWay, scope: anyio.CancelScope) -> Any:
    real = way.arrived

    async def arrived(coming: Coming, chunks: Sequence[Chunk], least: int) -> list[Chunk]:
        if len(way.asked) > 1:
            scope.cancel()
        return await real(coming, chunks, least)

    return arrived


async def test_a_tree_that_is_not_allowed_is_not_fetched(world: World) -> None:
    world.arrive()

    def refuse(_tree: Tree) -> None:
        raise Refused("input.not_permitted")

    with pytest.raises(Refused):
        await world.fetch(allow=refuse)
    assert set(world.way.fetched) == set(dict(world.tree.index()))
    assert not world.place.early(world.coming.job).joinpath(folder_of(world.tree)).exists()


async def test_half_of_the_room_stays_for_jobs(world: World) -> None:
    world.place.free = 2 * world.tree.size - 1
    world.arrive()
    with pytest.raises(StorageFull):
        await world.fetch()
    assert set(world.way.fetched) == set(dict(world.tree.index()))
    world.place.free = 1 << 40
    await world.fetch()
    assert set(world.tree.chunks()) < set(world.way.fetched)


def with_a_large_file(world: World, tmp_path: Path) -> int:
    """Add a file of 600 MiB, all of it a hole; return the size of the tree."""
    with (tmp_path / "source" / "sparse").open("wb") as file:
        file.truncate(600 * MIB)
    world.local = world.way.local = LocalTree(scan([("in", tmp_path / "source")]))
    return world.tree.size


async def test_more_than_half_of_much_room_is_not_used_either(world: World, tmp_path: Path) -> None:
    """Kills: all of a disk filled but for what is always left."""
    size = with_a_large_file(world, tmp_path)
    world.arrive()
    world.place.free = 2 * size - 1
    with pytest.raises(StorageFull):
        await world.fetch()
    world.place.free = 2 * size
    await world.fetch()


@dataclass
class HeldWay(MemoryWay):
    """Lets the job ``held`` wait for what comes after the list."""

    held: str = ""
    waits: anyio.Event = field(default_factory=anyio.Event)
    goes_on: anyio.Event = field(default_factory=anyio.Event)

    async def arrived(self, coming: Coming, chunks: Sequence[Chunk], least: int) -> list[Chunk]:
        if coming.job == self.held and chunks[0] in self.local.tree.chunks():
            self.waits.set()
            await self.goes_on.wait()
        return await super().arrived(coming, chunks, least)


async def test_what_others_are_still_to_bring_has_its_room(world: World, tmp_path: Path) -> None:
    """Kills: several drafts at once, each within half of the room, that fill all of it."""
    size = with_a_large_file(world, tmp_path)
    way = HeldWay(world.local, held=world.coming.job)
    world.way, world.early = way, HttpsEarly(way, world.place, breath_s=0)
    world.arrive()
    other = Coming(job=an_id("job"), submitter="bob", request=b"")
    world.place.free = 3 * size - 1
    async with anyio.create_task_group() as group:
        group.start_soon(world.fetch)
        await way.waits.wait()
        with pytest.raises(StorageFull):
            await world.early.fetch(other, world.tree.ref(), lambda tree: tree)
        way.goes_on.set()
    await world.early.fetch(other, world.tree.ref(), lambda tree: tree)  # the control


async def test_a_disk_that_fills_up_meanwhile_ends_it(world: World) -> None:
    world.arrive()
    world.way.fail_after = 6
    with pytest.raises(Unreachable):
        await world.fetch()
    world.way.fail_after = None
    world.place.free = max(100 * MIB, 2 * world.tree.size)
    before = list(world.way.fetched)
    with pytest.raises(StorageFull):
        await world.fetch()
    assert [c for c in world.way.fetched[len(before) :] if c in set(world.tree.chunks())] == []
