"""The agent dies at every call that it makes, before it and after it; the next one goes on.

The calls are counted in a run that nothing disturbs, so that none is left out. P2, P3, P4.
"""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from sekisho.adapters.scheduler_memory import Play
from sekisho.domain.job import JobState
from sekisho.domain.run import Run
from sekisho.domain.sitelog import Kind, verify
from tests.site_world import GOOD, RESULT, Crash, Effects, World, a_command, a_manifest
from tests.virtual_time import simulate


@dataclass(frozen=True)
class Story:
    """What happens to one job, and how it must end, wherever the agent dies."""

    play: Play = GOOD
    command: str = "solve"
    cancel: bool = False
    ends: frozenset[str] = frozenset({"succeeded"})


STORIES = {
    "succeeds": Story(),
    "fails": Story(play=replace(GOOD, code=3), ends=frozenset({"failed"})),
    "refused": Story(command="unknown", ends=frozenset({"refused"})),
    "vanishes": Story(play=replace(GOOD, fate="vanishes"), ends=frozenset({"lost"})),
    "cancelled": Story(play=replace(GOOD, seconds=1e5), cancel=True, ends=frozenset({"cancelled"})),
    "over its limit": Story(play=replace(GOOD, seconds=1e5), ends=frozenset({"failed"})),
}


def a_life(world: World, job: str, story: Story) -> None:
    """One agent's life: until all is settled, or its crash."""

    def settled() -> bool:
        run = world.run(job)
        return world.job(job).state.terminal and (run is None or run.settled)

    async def life() -> None:
        async with world.serving():
            if story.cancel:
                await world.until(lambda: world.scheduler.started)
                world.cancel(job)
            await world.until(settled)

    simulate(world.clock, life)


def played(base: Path, story: Story, crash_at: tuple[int, str]) -> tuple[World, str, int]:
    """Play ``story`` with one death; return the world, the job, and how many calls it took."""
    world = World(base, a_manifest(a_command(time_limit=timedelta(seconds=45))))
    world.plays["solve"] = [story.play]
    world.effects.crash_at = crash_at
    job = world.submit(story.command, inputs={"a.dat": b"1"})
    try:
        a_life(world, job, story)
        calls = len(world.effects.calls)
    except Crash:
        calls = len(world.effects.calls)
        world.effects = Effects()
        a_life(world, job, story)
    return world, job, calls


@functools.cache
def calls_of(name: str) -> list[str]:
    with tempfile.TemporaryDirectory() as base:
        world, _, _ = played(Path(base), STORIES[name], (0, "before"))
        return world.effects.calls


@pytest.mark.parametrize("name", STORIES)
def test_wherever_the_agent_dies_there_is_one_fate_one_start_at_most_and_one_result(
    tmp_path: Path, name: str
) -> None:
    story = STORIES[name]
    undisturbed = calls_of(name)
    for number, when in itertools.product(range(1, len(undisturbed) + 1), ("before", "after")):
        base = tmp_path / f"{number}-{when}"
        base.mkdir()
        world, job, died_after = played(base, story, (number, when))
        where = f"{when} {number} {undisturbed[number - 1]}"
        assert died_after >= number, where
        assert world.state(job) in story.ends, where
        assert len(world.scheduler.started) <= 1, where
        check_result(world, job, story, where)
        check_log(world, job, where)


def check_result(world: World, job: str, story: Story, where: str) -> None:
    if story.play in (GOOD, replace(GOOD, code=3)) and story.command == "solve":
        assert world.outputs(job)["result.txt"] == RESULT, where
    states = [state for _, state in world.broker.ports.store.ledger.history(job)]
    held = [state for state in states if state not in {JobState.QUEUED, JobState.OFFERED}]
    assert len(held) == len(set(held)), where
    assert [state for state in held if state.terminal] == held[-1:], where


def check_log(world: World, job: str, where: str) -> None:
    """The chain holds, a start was recorded before it, and the receipt is in the log."""
    assert verify(link.line for link in world.journal.links)[1] is None, where
    kinds = Counter(record.kind for record in world.journal.records)
    assert kinds[Kind.STARTED] >= len(world.scheduler.started), where
    digests = {link.digest for link in world.journal.links}
    assert world.outcome(job).receipt in digests, where
    run: Run | None = world.run(job)
    if run is not None and run.tree is not None:
        assert run.tree in {r.facts["tree"] for r in world.logged(Kind.RELEASED)}, where


def test_the_stories_go_through_every_port() -> None:
    seen = {call for name in STORIES for call in calls_of(name)}
    assert seen >= {
        "journal.append",
        "journal.knew",
        "journal.runs",
        "journal.save",
        "mailbox.accept",
        "mailbox.fetch",
        "mailbox.list_inputs",
        "mailbox.poll",
        "mailbox.send",
        "mailbox.tell",
        "scheduler.cancel",
        "scheduler.changed",
        "scheduler.observe",
        "scheduler.submit",
        "workplace.collect",
        "workplace.place",
        "workplace.prepare",
        "workplace.stage",
        "workplace.staged",
    }


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_start_that_an_earlier_life_may_have_made_is_looked_for_first(
    tmp_path: Path, when: str
) -> None:
    """Kills: trusting the memory of a process that is gone; only a new intent needs no look."""
    undisturbed = calls_of("succeeds")
    assert "scheduler.find" not in undisturbed
    number = undisturbed.index("scheduler.submit") + 1
    world, _, _ = played(tmp_path, STORIES["succeeds"], (number, when))
    calls = world.effects.calls
    submitted = calls.index("scheduler.submit") if when == "before" else len(calls)
    assert calls.index("scheduler.find") < submitted
    assert calls.count("scheduler.submit") == (when == "before")
    assert len(world.scheduler.started) == 1


def test_a_witness_sees_a_second_start_when_the_latch_is_taken_away(tmp_path: Path) -> None:
    world = World(tmp_path)
    job = world.submit()
    number = calls_of("succeeds").index("scheduler.submit") - 2  # this one fetches no inputs
    world.effects.crash_at = (number + 1, "after")
    with pytest.raises(Crash):
        a_life(world, job, Story())
    world.scheduler._jobs.clear()  # noqa: SLF001 the defence that this is about
    world.wipe(job)
    world.workplace.prepare(job, 1)
    world.effects = Effects()
    a_life(world, job, Story())
    assert len(world.scheduler.started) == 2
