"""Inputs fetched before their job is offered: whose, when, and how it ends. Nobody is bound by it.

`MemoryEarly` stands for the lane: it looks at a draft's tree, and then fetches until it is stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from sekisho.adapters.mailbox_memory import BrokerChunks
from sekisho.broker.chunks import Claim
from sekisho.broker.ports import Tenant
from sekisho.domain.access import Submitters
from sekisho.domain.errors import (
    Conflict,
    Corrupt,
    InvalidTransition,
    SekishoError,
    StorageFull,
    Unreachable,
)
from sekisho.domain.files import Pattern, RelPath
from sekisho.domain.limits import EARLY_BYTES, MIB
from sekisho.domain.manifest import InputRule
from sekisho.site.agent import Agent
from sekisho.transfer.pack import SMALL_BYTES
from sekisho.transfer.send import send_tree
from sekisho.transfer.tree import Tree, TreeFile
from sekisho.wire.envelope import Request, TreeRef, seal
from sekisho.wire.frames import Chunk, digest_of
from sekisho.wire.v1 import Coming, SubmitJob
from tests.site_world import GOOD, SITE, USER, World, a_command, a_manifest, a_tree
from tests.virtual_time import simulate
from tests.world import an_id

LONG = replace(GOOD, seconds=500)
CONTENTS = [n.to_bytes(4, "big") * (MIB // 8) for n in range(2 * EARLY_BYTES // MIB)]
#: As a sender declares them who has only just begun.
MUCH = [Chunk(digest_of(data), len(data)) for data in CONTENTS]
SMALL = {"mesh.dat": b"1" * 100}
SMALL_TREE = a_tree(SMALL)[0]


@dataclass
class MemoryEarly:
    """Implements `site.mailbox.EarlyLine`; ``tree`` is what every draft turns out to bring."""

    tree: Tree = SMALL_TREE
    errors: list[BaseException] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    dropped: list[str | None] = field(default_factory=list)
    wanted: list[list[str]] = field(default_factory=list)
    most: int = 0

    async def fetch(self, coming: Coming, ref: TreeRef, allow: Callable[[Tree], Tree]) -> None:
        del ref
        self.begun.append(coming.job)
        if self.errors:
            raise self.errors.pop(0)
        self.wanted.append([str(file.path) for file in allow(self.tree).files])
        self.allowed.append(coming.job)
        self.most = max(self.most, len(self.allowed) - len(self.stopped))
        try:
            await anyio.sleep_forever()
        finally:
            self.stopped.append(coming.job)

    async def drop(self, job: str | None) -> None:
        self.dropped.append(job)


@dataclass
class EarlyWorld:
    """A site's world whose lane lets inputs be fetched early."""

    world: World
    line: MemoryEarly = field(default_factory=MemoryEarly)

    def agent(self) -> Agent:
        desk = replace(self.world.desk(), early=self.line)
        capacity = self.world.manifest.max_running
        wishes = self.world.wishes
        return Agent(desk, wishes, capacity=lambda: capacity, alive=lambda: None)

    def draft(self, chunks: list[Chunk] = MUCH, user: str = USER, **changes: Any) -> str:
        """Submit a job of which only the list of chunks is known to the broker so far."""
        usual: dict[str, Any] = {"command": "solve", "inputs": SMALL_TREE.ref()}
        request = seal(Request(**(usual | changes)))
        job = an_id("job")
        message = SubmitJob(id=job, site=SITE, request=request, has_inputs=True)
        self.world.broker.submissions.submit(user, message)
        claim = Claim(tenant=Tenant(submitter=user))
        self.world.broker.chunks.missing(claim, job, chunks)
        return job

    def finish(self, job: str) -> None:
        """Send what the draft lacks, and say that this is all."""
        port = BrokerChunks(self.world.broker, Claim(tenant=Tenant(submitter=USER)), job)
        tree, contents = a_tree(SMALL)
        send_tree(tree, contents.__getitem__, port)
        port.send(zip(MUCH, CONTENTS, strict=True))
        self.world.broker.submissions.start(USER, job)

    def play(self, *steps: Callable[[Agent], Any]) -> None:
        """Let an agent serve; take each step when all is quiet."""

        async def story() -> None:
            agent = self.agent()
            async with anyio.create_task_group() as group:
                group.start_soon(agent.serve)
                await anyio.sleep(1)
                for step in steps:
                    step(agent)
                    await anyio.sleep(60)
                group.cancel_scope.cancel()

        simulate(self.world.clock, story)


@pytest.fixture
def early(tmp_path: Path) -> EarlyWorld:
    return EarlyWorld(World(tmp_path, a_manifest(a_command(max_running=9), max_running=2)))


@dataclass(frozen=True)
class FullStock:
    """Seems to have whatever it is asked for."""

    clones: bool = False

    def has(self, _: str, files: Sequence[TreeFile]) -> set[RelPath]:
        return {file.path for file in files}


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("clones", [True, False])
@pytest.mark.parametrize("large", [True, False])
def test_what_will_be_lent_is_not_fetched_early(
    early: EarlyWorld, *, read_only: bool, clones: bool, large: bool
) -> None:
    rule = InputRule(path=Pattern("*.dat"), max_bytes=1 << 20, read_only=read_only)
    early.world.edit(inputs=(rule,))
    early.world.stock = FullStock(clones)
    early.line.tree = a_tree({"mesh.dat": b"1" * (SMALL_BYTES if large else 100)})[0]
    early.draft()
    early.play()
    to_fetch = [] if read_only or (clones and large) else ["mesh.dat"]
    assert early.line.wanted == [to_fetch]


# --- what is fetched --------------------------------------------------------------------------


def test_a_draft_is_fetched_while_it_is_one(early: EarlyWorld) -> None:
    jobs: list[str] = []
    early.play(lambda _: jobs.append(early.draft()))
    assert early.line.allowed == jobs
    assert early.world.state(jobs[0]) == "draft"
    assert early.world.run(jobs[0]) is None  # nothing was taken
    assert early.world.journal.records == []


def test_a_draft_that_brings_little_is_not_told(early: EarlyWorld) -> None:
    early.play(lambda _: early.draft(MUCH[:-1]))
    assert early.line.begun == []


def test_what_the_broker_has_already_does_not_count(early: EarlyWorld) -> None:
    early.world.submit(inputs={"a.dat": CONTENTS[0]})
    early.play(lambda _: early.draft(MUCH))
    assert early.line.begun == []


def unlisted(world: World) -> None:
    world.manifest = replace(world.manifest, submitters=Submitters(frozenset({"carol"})))


def not_for_them(world: World) -> None:
    world.edit(submitters=Submitters(frozenset({"carol"})))


def disabled(world: World) -> None:
    world.edit(enabled=False)


def switched_off(world: World) -> None:
    world.broker.sites.switch(SITE, disabled=True, command="solve")


def nothing(_world: World) -> None:
    """Change nothing: what is asked is wrong in itself."""


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        (unlisted, {}),
        (not_for_them, {}),
        (disabled, {}),
        (switched_off, {}),
        (World.remove, {}),
        (nothing, {"command": "unknown"}),
        (nothing, {"parameters": {"n": 11}}),
        (nothing, {"parameters": {"m": 1}}),
        (nothing, {"parameters": {"n": "3; true"}}),
        (nothing, {"outputs": ["secret.dat"]}),
        (nothing, {"inputs": None}),
    ],
)
def test_what_the_manifest_would_refuse_is_never_fetched(
    early: EarlyWorld, change: Callable[[World], None], asked: dict[str, Any]
) -> None:
    jobs: list[str] = []
    change(early.world)
    early.play(lambda _: jobs.append(early.draft(**asked)))
    assert early.line.begun == []
    assert early.world.state(jobs[0]) == "draft"


@pytest.mark.parametrize(
    ("name", "size"), [("mesh.dat", 1001), ("mesh.txt", 1), ("other/mesh.dat", 1)]
)
def test_inputs_that_the_manifest_would_refuse_are_never_fetched(
    early: EarlyWorld, name: str, size: int
) -> None:
    early.line.tree = a_tree({name: b"1" * size})[0]
    early.play(lambda _: early.draft())
    assert len(early.line.begun) == 1  # their list is
    assert early.line.allowed == []
    assert early.line.dropped[-1] == early.line.begun[0]


@pytest.mark.parametrize("change", [disabled, unlisted, not_for_them, World.remove])
def test_what_the_manifest_refuses_meanwhile_is_fetched_no_more_and_not_kept(
    early: EarlyWorld, change: Callable[[World], None]
) -> None:
    """And its offer is refused. Kills: a right that was taken away, but not from what was begun."""
    jobs: list[str] = []
    early.play(
        lambda _: jobs.append(early.draft()),
        lambda _: change(early.world),
        lambda _: early.finish(jobs[0]),
    )
    assert early.line.stopped == early.line.allowed == jobs
    assert early.line.dropped[-1] == jobs[0]
    assert early.world.state(jobs[0]) == "refused"
    assert early.world.scheduler.started == []


# --- how much, and when -----------------------------------------------------------------------


def test_no_more_drafts_are_fetched_at_a_time_than_there_are_free_slots(early: EarlyWorld) -> None:
    early.play(*[lambda _: early.draft()] * 5)
    assert early.line.most == 2
    assert len(early.line.begun) == 2


def test_the_next_is_fetched_when_one_is_gone(early: EarlyWorld) -> None:
    jobs: list[str] = []
    steps = [lambda _: jobs.append(early.draft())] * 3
    early.play(*steps, lambda _: early.world.cancel(jobs[0]))
    assert early.line.begun == jobs
    assert early.line.stopped[0] == jobs[0]
    assert jobs[0] in early.line.dropped


def test_without_a_free_slot_nothing_is_fetched(early: EarlyWorld) -> None:
    early.world.plays["solve"] = [LONG]
    running = [early.world.submit(), early.world.submit()]
    early.play(lambda _: early.draft())
    assert early.world.state(running[1]) == "running"
    assert early.line.begun == []


def test_a_paused_site_fetches_nothing_and_keeps_nothing(early: EarlyWorld) -> None:
    jobs: list[str] = []

    def pause(agent: Agent) -> None:
        early.world.wishes.is_paused = True
        agent.wake()

    def go_on(agent: Agent) -> None:
        early.world.wishes.is_paused = False
        agent.wake()

    def while_paused(_agent: Agent) -> None:
        assert early.line.begun == []

    early.play(pause, lambda _: jobs.append(early.draft()), while_paused, go_on, pause)
    assert early.line.begun == early.line.stopped == jobs
    assert early.line.dropped[-1] == jobs[0]


def test_an_agent_that_is_drained_ends_at_once_and_leaves_nothing(early: EarlyWorld) -> None:
    async def story() -> None:
        agent = early.agent()
        async with anyio.create_task_group() as group:
            group.start_soon(agent.serve)
            await anyio.sleep(1)
            early.draft()
            await early.world.until(lambda: early.line.allowed)
            agent.drain()

    simulate(early.world.clock, story, within_s=5)
    assert early.line.dropped[-1] == early.line.begun[0]


def test_what_an_agent_before_left_is_removed_when_one_begins(early: EarlyWorld) -> None:
    early.play()
    assert early.line.dropped == [None]


# --- how it ends ------------------------------------------------------------------------------


def test_the_offer_of_a_draft_is_taken_as_ever_and_its_fetch_ends(early: EarlyWorld) -> None:
    jobs: list[str] = []
    early.play(lambda _: jobs.append(early.draft()), lambda _: early.finish(jobs[0]))
    assert early.world.state(jobs[0]) == "succeeded"
    assert early.line.begun == early.line.stopped == jobs
    assert early.line.dropped == [None, jobs[0]]  # once it was staged


@pytest.mark.parametrize("error", [StorageFull("site.disk_full"), Corrupt("x"), ValueError("bug")])
def test_a_fetch_that_fails_for_good_leaves_nothing_and_harms_nobody(
    early: EarlyWorld, error: BaseException
) -> None:
    early.world.clock.crashes_expected = True
    early.line.errors = [error]
    other: list[str] = []
    early.play(lambda _: early.draft(), lambda _: other.append(early.world.submit()))
    assert len(early.line.begun) == 1
    assert early.line.dropped[-1] == early.line.begun[0]
    assert early.world.state(other[0]) == "succeeded"


def test_a_line_that_breaks_is_tried_again_a_few_times(early: EarlyWorld) -> None:
    early.line.errors = [Unreachable(why="cut") for _ in range(3)]
    early.play(lambda _: early.draft(), lambda _: None, lambda _: None)
    assert len(early.line.begun) == 4
    assert len(early.line.allowed) == 1


def test_a_line_that_stays_broken_is_given_up(early: EarlyWorld) -> None:
    early.line.errors = [Unreachable(why="cut") for _ in range(100)]
    early.play(lambda _: early.draft(), *[lambda _: None] * 10)
    assert 5 < len(early.line.begun) < 10
    assert early.line.dropped[-1] == early.line.begun[0]


@pytest.mark.parametrize(
    "error",
    [InvalidTransition(job="x", state="offered", event="FetchedEarly"), Conflict("early.silent")],
)
def test_what_is_here_is_kept_for_an_offer_that_may_come(
    early: EarlyWorld, error: SekishoError
) -> None:
    early.line.errors = [error]
    early.play(lambda _: early.draft())
    assert early.line.dropped == [None]
