"""What every Stock does: right files for who sent them, write-protected, and no trouble."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sekisho.adapters.stock_linked import LinkedStock
from sekisho.adapters.stock_memory import MemoryStock
from sekisho.domain.files import RelPath
from sekisho.site.stock import Stock
from sekisho.site.workplace import Place
from sekisho.transfer.pack import SMALL_BYTES
from sekisho.transfer.source import LocalTree, scan
from sekisho.transfer.tree import TreeFile
from tests.modes import obeyed
from tests.stock_yard import a_place

#: Worth keeping for every adapter.
SIZE = SMALL_BYTES + 4096
MESH = b"m" * SIZE
NAME = "in/mesh"
Make = Callable[[Path, int], Stock]
ADAPTERS: Mapping[str, Make] = {
    "memory": lambda _, most: MemoryStock(most),
    "linked": lambda base, most: LinkedStock(base, most, spare_bytes=0),
}


@dataclass
class Site:
    """Jobs, each with a directory for its inputs, and the stock that they share."""

    home: Path
    make: Make
    jobs: int = 0
    stocks: list[Stock] = field(default_factory=list)

    def start(self, max_bytes: int = 1 << 30) -> None:
        self.stocks.append(self.make(self.home / "base", max_bytes))

    @property
    def stock(self) -> Stock:
        return self.stocks[-1]

    def files(self, contents: Mapping[str, bytes], *, executable: bool = False) -> list[TreeFile]:
        """Return the list of a tree that holds exactly this."""
        source = self.home / "source"
        source.mkdir(exist_ok=True)
        entries = []
        for number, (name, data) in enumerate(contents.items()):
            file = source / str(number)
            file.unlink(missing_ok=True)
            file.write_bytes(data)
            file.chmod(0o755 if executable else 0o644)
            entries.append((name, file))
        return list(LocalTree(scan(entries)).tree.files)

    def place(self) -> Place:
        self.jobs += 1
        return a_place(self.home / "base", self.jobs)

    def fetched(
        self, contents: Mapping[str, bytes], who: str = "alice", *, executable: bool = False
    ) -> Place:
        """Stage a job whose inputs all crossed the line, and have them kept."""
        place = self.place()
        for name, data in contents.items():
            file = Path(place.input_dir, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            file.chmod(0o755 if executable else 0o644)
        self.stock.keep(who, place, self.files(contents, executable=executable))
        return place

    def lent(
        self, contents: Mapping[str, bytes], who: str = "alice", *, executable: bool = False
    ) -> dict[str, bytes]:
        """Return what a new job is lent."""
        place, files = self.place(), self.files(contents, executable=executable)
        paths = self.stock.lend(who, place, files, lasting=False)
        return {str(path): inside(place, str(path)).read_bytes() for path in paths}


def inside(place: Place, name: str = NAME) -> Path:
    return Path(place.input_dir, name)


def mode_of(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


@pytest.fixture(params=ADAPTERS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "base").mkdir(mode=0o700)
    made = Site(tmp_path, ADAPTERS[request.param])
    with obeyed():
        made.start()
        yield made
        for stock in made.stocks:
            if isinstance(stock, LinkedStock):
                stock.close()


def test_what_was_kept_is_lent_as_it_came(site: Site) -> None:
    given = {NAME: MESH, "in/deep/er": b"e" * SIZE}
    assert site.lent(given) == {}
    site.fetched(given)
    for _ in range(3):
        assert site.lent(given) == given


def test_it_says_what_is_here_and_that_is_what_it_lends(site: Site) -> None:
    site.fetched({NAME: MESH})
    files = site.files({NAME: MESH, "other": b"o" * SIZE})
    assert set(site.stock.has("alice", files)) == {RelPath.parse(NAME)}
    lent = site.stock.lend("alice", site.place(), files, lasting=True)
    assert set(lent) == {RelPath.parse(NAME)}


def test_of_nothing_there_is_nothing(site: Site) -> None:
    assert not site.stock.has("alice", [])
    assert not site.stock.lend("alice", site.place(), [], lasting=True)
    site.stock.keep("alice", site.place(), [])


@pytest.mark.parametrize(("executable", "mode"), [(False, 0o444), (True, 0o555)])
def test_nobody_has_the_right_to_write_to_it(site: Site, executable: bool, mode: int) -> None:
    """Kills: what a job is given as it was fetched, or lent, with the right to change it."""
    first = site.fetched({NAME: MESH}, executable=executable)
    place = site.place()
    files = site.files({NAME: MESH}, executable=executable)
    assert site.stock.lend("alice", place, files, lasting=False)
    for each in (first, place):
        assert mode_of(inside(each)) == mode
        with pytest.raises(PermissionError):
            inside(each).open("r+b")


def test_what_is_not_worth_keeping_loses_the_right_too(site: Site) -> None:
    place = site.fetched({NAME: b"small", "in/empty": b""})
    assert mode_of(inside(place)) == mode_of(inside(place, "in/empty")) == 0o444


@pytest.mark.parametrize("other", ["bob", "Alice", "", "..", "alice/", "a" * 300])
def test_another_submitter_is_lent_nothing_of_it(site: Site, other: str) -> None:
    """Kills: one folder for all, which would tell bob that alice has a file."""
    site.fetched({NAME: MESH})
    assert not site.stock.has(other, site.files({NAME: MESH}))
    assert site.lent({NAME: MESH}, other) == {}


def test_content_counts_and_not_the_name(site: Site) -> None:
    """Kills: a file that is lent because another one had its name."""
    site.fetched({NAME: MESH})
    assert site.lent({NAME: MESH[:-1] + b"x"}) == {}
    assert site.lent({NAME: MESH[:-1]}) == {}
    assert site.lent({"elsewhere/x": MESH, "y": MESH}) == {"elsewhere/x": MESH, "y": MESH}


def test_a_file_that_may_be_run_is_another_one(site: Site) -> None:
    site.fetched({NAME: MESH})
    assert site.lent({NAME: MESH}, executable=True) == {}


def test_holes_count_as_what_they_stand_for(site: Site) -> None:
    given = {NAME: MESH + bytes(3 << 20) + MESH}
    site.fetched(given)
    assert site.lent(given) == given


def test_what_a_job_does_with_its_names_harms_no_other(site: Site) -> None:
    first, second = site.fetched({NAME: MESH}), site.fetched({NAME: MESH})
    inside(first).unlink()
    inside(second).rename(inside(second, "in/gone"))
    inside(second).write_bytes(b"its own")
    assert site.lent({NAME: MESH}) == {NAME: MESH}


def test_what_a_job_writes_over_its_own_reaches_no_other(site: Site) -> None:
    """As a job may that gives itself the right. Kills: bytes that are lent unseen."""
    place = site.fetched({NAME: MESH})
    inside(place).chmod(0o600)
    if isinstance(site.stock, LinkedStock):
        with pytest.raises(BlockingIOError):
            os.open(inside(place), os.O_RDWR | os.O_NONBLOCK)
        site.stock.give_way()
    inside(place).write_bytes(b"x" * SIZE)
    assert site.lent({NAME: MESH}) in ({}, {NAME: MESH})


def test_what_an_earlier_try_left_is_replaced(site: Site) -> None:
    site.fetched({NAME: MESH})
    place, files = site.place(), site.files({NAME: MESH})
    inside(place).parent.mkdir()
    for leave in (
        lambda: inside(place).write_bytes(b"by half"),
        lambda: inside(place).symlink_to("nowhere"),
        lambda: None,  # what it has lent itself
    ):
        leave()
        assert set(site.stock.lend("alice", place, files, lasting=True)) == {RelPath.parse(NAME)}
        assert not inside(place).is_symlink()
        assert inside(place).read_bytes() == MESH
        inside(place).unlink()


@pytest.mark.parametrize("lasting", [True, False])
def test_what_is_to_last_is_on_disk_and_so_are_its_names(
    site: Site, monkeypatch: pytest.MonkeyPatch, lasting: bool
) -> None:
    """Kills: an input that a power cut takes from a job which waits in a queue."""
    site.fetched({"in/deep/mesh": MESH})
    place, files = site.place(), site.files({"in/deep/mesh": MESH})
    synced: set[int] = set()
    monkeypatch.setattr(os, "fsync", lambda fd: synced.add(os.fstat(fd).st_ino))
    assert site.stock.lend("alice", place, files, lasting=lasting)
    names = [inside(place, name) for name in ("in/deep/mesh", "in/deep", "in", ".")]
    assert [name.stat().st_ino in synced for name in names] == [lasting] * 4


def test_a_link_in_the_place_of_a_folder_is_not_followed(site: Site) -> None:
    site.fetched({NAME: MESH})
    outside = site.home / "outside"
    outside.mkdir()
    (outside / "mesh").write_bytes(MESH)
    (outside / "mesh").chmod(0o644)
    place, files = site.place(), site.files({NAME: MESH})
    Path(place.input_dir, "in").symlink_to(outside)
    inode = (outside / "mesh").stat().st_ino
    assert not site.stock.lend("alice", place, files, lasting=False)
    site.stock.keep("bob", place, files)
    assert (outside / "mesh").stat().st_ino == inode
    assert mode_of(outside / "mesh") == 0o644
    assert not site.stock.has("bob", files)


def test_what_is_in_the_way_costs_the_sharing_and_nothing_else(site: Site) -> None:
    """Kills: an error for what need not be shared."""
    site.fetched({NAME: MESH})
    place, files = site.place(), site.files({NAME: MESH})
    inside(place).mkdir(parents=True)
    assert not site.stock.lend("alice", place, files, lasting=False)
    site.stock.keep("alice", place, files)
    gone = site.place()
    Path(gone.input_dir).rmdir()
    assert not site.stock.lend("alice", gone, files, lasting=False)
    site.stock.keep("alice", gone, files)
    assert site.lent({NAME: MESH}) == {NAME: MESH}


def test_keeping_again_is_no_error(site: Site) -> None:
    for _ in range(3):
        site.fetched({NAME: MESH})
    assert site.lent({NAME: MESH}) == {NAME: MESH}


def test_without_room_nothing_is_kept_and_nobody_is_troubled(site: Site) -> None:
    site.start(SIZE // 2)
    place = site.fetched({NAME: MESH})
    assert mode_of(inside(place)) == 0o444
    assert site.lent({NAME: MESH}) == {}
