"""What every Stock does: right files for who sent them, write-protected, and no trouble."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sekisho.adapters import stock_directory
from sekisho.adapters.stock_directory import DirectoryStock
from sekisho.adapters.stock_memory import MemoryStock
from sekisho.domain.files import RelPath
from sekisho.site.stock import Stock
from sekisho.site.workplace import Place
from sekisho.transfer.pack import SMALL_BYTES
from sekisho.transfer.source import LocalTree, scan
from sekisho.transfer.tree import TreeFile
from tests.cloning import let_clone, let_copy
from tests.modes import obeyed
from tests.stock_yard import a_place

#: Worth keeping for every adapter.
SIZE = SMALL_BYTES + 4096
MESH = b"m" * SIZE
NAME = "in/mesh"
Make = Callable[[Path, int], Stock]
ADAPTERS: Mapping[str, Make] = {
    "memory": lambda _, most: MemoryStock(most),
    "memory without clones": lambda _, most: MemoryStock(most, clones=False),
    "directory": lambda base, most: DirectoryStock(base, most, spare_bytes=0),
    "directory without clones": lambda base, most: DirectoryStock(base, most, spare_bytes=0),
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
        self,
        contents: Mapping[str, bytes],
        who: str = "alice",
        *,
        executable: bool = False,
        writable: bool = False,
    ) -> Place:
        """Stage a job whose inputs all crossed the line, and have them kept."""
        place = self.place()
        for name, data in contents.items():
            file = Path(place.input_dir, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            file.chmod(0o755 if executable else 0o644)
        files = self.files(contents, executable=executable)
        self.stock.keep(who, place, files, writable=writable)
        return place

    def lent(
        self,
        contents: Mapping[str, bytes],
        who: str = "alice",
        *,
        executable: bool = False,
        writable: bool = False,
    ) -> dict[str, bytes]:
        """Return what a new job is lent."""
        place, files = self.place(), self.files(contents, executable=executable)
        paths = self.stock.lend(who, place, files, writable=writable, lasting=False)
        return {str(path): inside(place, str(path)).read_bytes() for path in paths}


def inside(place: Place, name: str = NAME) -> Path:
    return Path(place.input_dir, name)


def mode_of(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


@pytest.fixture(params=ADAPTERS)
def site(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    (tmp_path / "base").mkdir(mode=0o700)
    if request.param == "directory":
        let_clone(monkeypatch, tmp_path)
    else:
        let_copy(monkeypatch)
    made = Site(tmp_path, ADAPTERS[request.param])
    with obeyed():
        made.start()
        yield made
        for stock in made.stocks:
            if isinstance(stock, DirectoryStock):
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
    lent = site.stock.lend("alice", site.place(), files, writable=False, lasting=True)
    assert set(lent) == {RelPath.parse(NAME)}


def test_of_nothing_there_is_nothing(site: Site) -> None:
    assert not site.stock.has("alice", [])
    assert not site.stock.lend("alice", site.place(), [], writable=False, lasting=True)
    site.stock.keep("alice", site.place(), [], writable=False)


@pytest.mark.parametrize(("executable", "mode"), [(False, 0o444), (True, 0o555)])
def test_nobody_has_the_right_to_write_to_it(site: Site, executable: bool, mode: int) -> None:
    """Kills: what a job is given as it was fetched, or lent, with the right to change it."""
    first = site.fetched({NAME: MESH}, executable=executable)
    place = site.place()
    files = site.files({NAME: MESH}, executable=executable)
    assert site.stock.lend("alice", place, files, writable=False, lasting=False)
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
    if isinstance(site.stock, DirectoryStock):
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
        assert set(site.stock.lend("alice", place, files, writable=False, lasting=True)) == {
            RelPath.parse(NAME)
        }
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
    assert site.stock.lend("alice", place, files, writable=False, lasting=lasting)
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
    assert not site.stock.lend("alice", place, files, writable=False, lasting=False)
    site.stock.keep("bob", place, files, writable=False)
    assert (outside / "mesh").stat().st_ino == inode
    assert mode_of(outside / "mesh") == 0o644
    assert not site.stock.has("bob", files)


def test_what_is_in_the_way_costs_the_sharing_and_nothing_else(site: Site) -> None:
    """Kills: an error for what need not be shared."""
    site.fetched({NAME: MESH})
    place, files = site.place(), site.files({NAME: MESH})
    inside(place).mkdir(parents=True)
    assert not site.stock.lend("alice", place, files, writable=False, lasting=False)
    site.stock.keep("alice", place, files, writable=False)
    gone = site.place()
    Path(gone.input_dir).rmdir()
    assert not site.stock.lend("alice", gone, files, writable=False, lasting=False)
    site.stock.keep("alice", gone, files, writable=False)
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


# ----------------------------------------------------------------- files that jobs may write to


def test_what_a_job_may_write_to_is_lent_as_it_came_where_there_are_clones(site: Site) -> None:
    given = {NAME: MESH, "in/deep/er": b"e" * SIZE, "holes": MESH + bytes(3 << 20) + MESH}
    assert site.lent(given, writable=True) == {}
    site.fetched(given, writable=True)
    for _ in range(3):
        assert site.lent(given, writable=True) == (given if site.stock.clones else {})


@pytest.mark.parametrize("executable", [False, True])
def test_a_job_may_write_to_what_it_is_lent_as_to_what_was_fetched(
    site: Site, executable: bool
) -> None:
    """Kills: a file that keeps the mode, or the time, of the one in stock."""
    before = time.time()
    first = site.fetched({NAME: MESH}, executable=executable, writable=True)
    umask = os.umask(0o022)
    os.umask(umask)
    assert mode_of(inside(first)) == (0o755 if executable else 0o644)  # untouched
    place, files = site.place(), site.files({NAME: MESH}, executable=executable)
    lent = site.stock.lend("alice", place, files, writable=True, lasting=False)
    assert bool(lent) == site.stock.clones
    for each in (inside(place) for _ in lent):
        seen = each.stat()
        assert mode_of(each) == (0o777 if executable else 0o666) & ~umask
        assert seen.st_nlink == 1
        assert before - 1 <= seen.st_mtime <= time.time() + 1


def test_what_a_job_writes_to_its_own_reaches_no_other_and_costs_no_look(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: a job that shares its file with the stock, or with another job."""
    first = site.fetched({NAME: MESH}, writable=True)
    files = site.files({NAME: MESH})
    places = [first, *(site.place() for _ in range(2))]
    for place in places[1:]:
        site.stock.lend("alice", place, files, writable=True, lasting=False)
    for place in places:
        if inside(place).exists():
            inside(place).write_bytes(b"x" * SIZE)
    monkeypatch.setattr(stock_directory, "holds", lambda *_: pytest.fail("it was read"))
    assert site.lent({NAME: MESH}, writable=True) == ({NAME: MESH} if site.stock.clones else {})


@pytest.mark.parametrize("kept_writable", [True, False])
def test_what_was_kept_for_one_kind_of_command_serves_the_other(
    site: Site, kept_writable: bool
) -> None:
    site.fetched({NAME: MESH}, writable=kept_writable)
    lent = site.lent({NAME: MESH}, writable=not kept_writable)
    assert lent == ({NAME: MESH} if site.stock.clones else {})


@pytest.mark.parametrize("other", ["bob", "Alice", "", "..", "alice.clones", "a" * 300])
def test_another_submitter_is_lent_no_clone_of_it(site: Site, other: str) -> None:
    site.fetched({NAME: MESH}, writable=True)
    assert not site.stock.has(other, site.files({NAME: MESH}))
    assert site.lent({NAME: MESH}, other, writable=True) == {}


@pytest.mark.parametrize("lasting", [True, False])
def test_a_clone_that_is_to_last_is_on_disk_and_so_are_its_names(
    site: Site, monkeypatch: pytest.MonkeyPatch, lasting: bool
) -> None:
    site.fetched({"in/deep/mesh": MESH}, writable=True)
    place, files = site.place(), site.files({"in/deep/mesh": MESH})
    synced: set[int] = set()
    monkeypatch.setattr(os, "fsync", lambda fd: synced.add(os.fstat(fd).st_ino))
    lent = site.stock.lend("alice", place, files, writable=True, lasting=lasting)
    names = [inside(place, name) for name in ("in/deep/mesh", "in/deep", "in", ".")]
    assert [name.stat().st_ino in synced for name in names if lent] == [lasting] * 4 * len(lent)


def test_a_clone_follows_no_link_in_the_place_of_a_folder(site: Site) -> None:
    site.fetched({NAME: MESH}, writable=True)
    outside = site.home / "outside"
    outside.mkdir()
    place, files = site.place(), site.files({NAME: MESH})
    Path(place.input_dir, "in").symlink_to(outside)
    assert not site.stock.lend("alice", place, files, writable=True, lasting=False)
    assert list(outside.iterdir()) == []
    (outside / "mesh").write_bytes(MESH)
    site.stock.keep("bob", place, files, writable=True)
    assert not site.stock.has("bob", files)


def test_what_an_earlier_try_left_is_replaced_by_a_clone(site: Site) -> None:
    site.fetched({NAME: MESH}, writable=True)
    place, files = site.place(), site.files({NAME: MESH})
    inside(place).parent.mkdir()
    outside = site.home / "outside"
    outside.write_bytes(b"of somebody")
    for leave in (
        lambda: inside(place).write_bytes(b"by half"),
        lambda: inside(place).symlink_to(outside),
        lambda: inside(place).hardlink_to(outside),
    ):
        leave()
        lent = site.stock.lend("alice", place, files, writable=True, lasting=True)
        assert [inside(place).read_bytes() for _ in lent] == [MESH] * site.stock.clones
        inside(place).unlink()
    assert outside.read_bytes() == b"of somebody"
