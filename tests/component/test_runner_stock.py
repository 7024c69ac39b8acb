"""Inputs that a command only reads: asked of the stock first, and kept there; fetched otherwise."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sekisho.adapters.scheduler_memory import Play
from sekisho.adapters.stock_directory import DirectoryStock
from sekisho.adapters.stock_memory import MemoryStock
from sekisho.domain.files import Pattern, RelPath
from sekisho.domain.manifest import Command, InputRule
from sekisho.domain.resources import Venue
from sekisho.site.stock import lendable
from sekisho.site.workplace import Place
from sekisho.transfer.tree import Tree, TreeFile
from tests.cloning import let_clone
from tests.modes import obeyed
from tests.site_world import USER, Crash, Effects, World, a_command, a_manifest, a_tree
from tests.virtual_time import simulate

MESH = os.urandom(200_000)
RULES = (
    InputRule(path=Pattern("mesh"), max_bytes=1 << 20, read_only=True),
    InputRule(path=Pattern("*.dat"), max_bytes=1000, required=False),
)
COMMAND = a_command(inputs=RULES, max_running=9)
INPUTS = {"mesh": MESH, "a.dat": b"1"}


class AskedStock(MemoryStock):
    """Remembers what it was asked."""

    def __init__(self, *, clones: bool = False) -> None:
        super().__init__(clones=clones)
        self.asked: list[tuple[str, str, list[str], Any]] = []

    def lend(
        self,
        submitter: str,
        place: Place,
        files: Sequence[TreeFile],
        *,
        writable: bool,
        lasting: bool,
    ) -> set[RelPath]:
        self.asked.append((_how("lend", writable), submitter, _names(files), lasting))
        return super().lend(submitter, place, files, writable=writable, lasting=lasting)

    def keep(
        self, submitter: str, place: Place, files: Sequence[TreeFile], *, writable: bool
    ) -> None:
        self.asked.append((_how("keep", writable), submitter, _names(files), None))
        super().keep(submitter, place, files, writable=writable)


def _how(what: str, writable: bool) -> str:
    return f"{what} writable" if writable else what


def _names(files: Sequence[TreeFile]) -> list[str]:
    return [str(file.path) for file in files]


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, a_manifest(COMMAND, max_running=9))
    world.stock = AskedStock()
    return world


@pytest.fixture
def _ordinary() -> Iterator[None]:
    with obeyed():
        yield


def carried(world: World, job: str) -> str:
    async def story() -> str:
        async with world.serving():
            return await world.ended(job)

    return simulate(world.clock, story)


def submitted(world: World, seen: list[dict[str, bytes]] | None = None) -> str:
    """Submit a job whose command tells what it was given."""
    if seen is not None:

        def look(work: Path) -> None:
            seen.append({p.name: p.read_bytes() for p in work.iterdir()})

        world.plays["solve"] = [Play(leave=look)]
    return world.submit(inputs=INPUTS, outputs=[])


def test_what_is_fetched_is_kept_and_what_is_lent_is_not_fetched(world: World) -> None:
    seen: list[dict[str, bytes]] = []
    for _ in range(2):
        assert carried(world, submitted(world, seen)) == "succeeded"
    assert seen == [INPUTS, INPUTS]
    lend = ("lend", USER, ["mesh"], False)
    assert world.stock.asked == [lend, ("keep", USER, ["mesh"], None), lend]


def test_with_all_of_them_lent_the_line_is_not_asked(world: World) -> None:
    calls = []
    for _ in range(2):
        world.effects.calls.clear()
        assert carried(world, world.submit(inputs={"mesh": MESH}, outputs=[])) == "succeeded"
        calls.append("mailbox.fetch" in world.effects.calls)
    assert calls == [True, False]


def test_what_a_batch_system_starts_later_is_lent_for_longer_than_a_power_cut(
    world: World,
) -> None:
    world.edit(venue=Venue(scheduler="slurm"))
    assert carried(world, submitted(world)) == "succeeded"
    assert world.stock.asked[0] == ("lend", USER, ["mesh"], True)


def test_with_clones_what_a_command_may_write_to_is_lent_and_kept_too(world: World) -> None:
    """Kills: a file that is asked for as one that is only read, or that is fetched all the same."""
    world.stock = AskedStock(clones=True)
    both = {"mesh": MESH, "big.dat": MESH[::-1], "a.dat": b"1"}
    rules = (RULES[0], replace(RULES[1], max_bytes=1 << 20))
    world.edit(inputs=rules)
    for _ in range(2):
        assert carried(world, world.submit(inputs=both, outputs=[])) == "succeeded"
    lend = [("lend", USER, ["mesh"], False), ("lend writable", USER, ["big.dat"], False)]
    keep = [("keep", USER, ["mesh"], None), ("keep writable", USER, ["big.dat"], None)]
    assert world.stock.asked == [*lend, *keep, *lend]


def shared(command: Command | None, *, clones: bool) -> list[tuple[bool, list[str]]]:
    tree = Tree(a_tree(INPUTS | {"big": MESH})[0].files)
    return [(w, _names(files)) for w, files in lendable(command, tree, clones=clones)]


def test_shared_is_only_what_is_read_only_and_read_where_it_is_fetched() -> None:
    assert shared(COMMAND, clones=False) == [(False, ["mesh"])]
    assert shared(None, clones=False) == []
    assert shared(replace(COMMAND, venue=Venue(host="ssh:hpc")), clones=True) == []
    writes = replace(COMMAND, inputs=(replace(RULES[0], read_only=False), RULES[1]))
    assert shared(writes, clones=False) == []


def test_with_clones_all_that_is_large_is_shared() -> None:
    assert shared(COMMAND, clones=True) == [(False, ["mesh"]), (True, ["big"])]
    writes = replace(COMMAND, inputs=(replace(RULES[0], read_only=False), RULES[1]))
    assert shared(writes, clones=True) == [(True, ["big", "mesh"])]
    assert shared(None, clones=True) == []


@pytest.mark.usefixtures("_ordinary")
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("writable", [False, True])
def test_wherever_the_agent_dies_a_job_starts_once_at_most_with_what_was_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, known: bool, writable: bool
) -> None:
    """With the real stock, while it gets the file and while it lends it: a link, or a clone."""
    let_clone(monkeypatch, tmp_path)
    rules = (replace(RULES[0], read_only=not writable), RULES[1])
    manifest = a_manifest(replace(COMMAND, inputs=rules), max_running=9)

    def life(world: World, job: str) -> None:
        async def story() -> None:
            async with world.serving():
                await world.until(lambda: (run := world.run(job)) is not None and run.settled)

        simulate(world.clock, story)

    def died(number: int, when: str) -> World | None:
        """Let the agent die at one of its calls; return the world when it made fewer."""
        world = World(tmp_path / f"{number}-{when}", manifest)
        world.base.parent.mkdir()
        world.stock = DirectoryStock(world.base, 1 << 30, spare_bytes=0)
        seen: list[dict[str, bytes]] = []
        if known:
            assert carried(world, submitted(world, seen)) == "succeeded"
        job = submitted(world, seen)
        world.effects = Effects(crash_at=(number, when))
        try:
            life(world, job)
            if number > len(world.effects.calls):
                world.stock.close()
                return world
        except Crash:
            world.effects = Effects()
            world.stock.close()
            world.stock = DirectoryStock(world.base, 1 << 30, spare_bytes=0)
            life(world, job)
        assert world.state(job) in {"succeeded", "lost"}, number
        assert all(given == INPUTS for given in seen), number
        assert len(world.scheduler.started) <= 1 + known, number
        world.stock.close()
        return None

    deaths = ((number, when) for number in itertools.count(1) for when in ("before", "after"))
    alive = next(filter(None, itertools.starmap(died, deaths)))
    assert {"stock.lend", "scheduler.submit"} <= set(alive.effects.calls)
