"""What a running job shows of itself: what its manifest publishes and its submitter asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from sekisho.adapters.scheduler_memory import Play
from sekisho.broker.ports import Tenant
from sekisho.client.snapshot import Snapshot, snapshot_of
from sekisho.domain.egress import OutputRule, PublishRule
from sekisho.domain.errors import InvalidTransition, NotFound, StaleEpoch, Unreachable
from sekisho.domain.files import Pattern, RelPath
from sekisho.domain.sitelog import Kind, verify
from sekisho.wire.v1 import Publish
from tests.site_world import INSTANCE, SITE, USER, World, a_command, a_manifest, leaves
from tests.virtual_time import simulate
from tests.world import NOW

RULE = PublishRule(
    every=timedelta(seconds=30),
    files=(OutputRule(path=Pattern("*.csv"), max_bytes=100, max_files=3),),
    progress=RelPath.parse("progress"),
)
ASKED = ["result.txt", "*.csv", "*.txt", "progress*"]


def a_world(tmp_path: Path, *, seconds: float = 100, rule: PublishRule | None = RULE) -> World:
    world = World(tmp_path, a_manifest(a_command(publish=rule)))
    files = leaves(result_txt=b"42", notes_txt=b"secret", life_csv=b"1,2", progress=b"40.9\n")
    world.plays["solve"] = [Play(seconds=seconds, leave=files, stdout="secret words")]
    return world


def shown(world: World, job: str) -> Snapshot | None:
    try:
        return snapshot_of(job, world.broker.publications.last(USER, job))
    except NotFound:
        return None


def seen_after(world: World, job: str, seconds: float) -> Snapshot | None:
    """Return what is shown of ``job`` so many seconds after its start."""

    async def story() -> None:
        async with world.serving():
            await world.until(lambda: world.state(job) == "running")
            began = world.clock.monotonic()
            await world.until(lambda: world.clock.monotonic() >= began + seconds)

    simulate(world.clock, story)
    return shown(world, job)


def test_what_is_published_and_asked_for_is_seen_while_the_command_runs(tmp_path: Path) -> None:
    """Kills a publisher that shows every output, or what was not asked for."""
    world = a_world(tmp_path)
    job = world.submit(outputs=ASKED)
    seen = seen_after(world, job, 40)
    assert seen is not None
    assert (seen.progress, dict(seen.files), seen.number) == (40, {"life.csv": b"1,2"}, 1)
    assert world.state(job) == "running"
    assert world.job(job).snapshots == 1


def test_what_was_not_asked_for_is_not_seen(tmp_path: Path) -> None:
    world = a_world(tmp_path)
    seen = seen_after(world, world.submit(outputs=["result.txt"]), 40)
    assert seen is not None
    assert (seen.progress, dict(seen.files)) == (40, {})


@pytest.mark.parametrize(
    "rule", [None, PublishRule(every=RULE.every, progress=RelPath.parse("no"))]
)
def test_without_a_rule_or_without_news_nothing_leaves(
    tmp_path: Path, rule: PublishRule | None
) -> None:
    """The positive control is the test above: there the same job is seen."""
    world = a_world(tmp_path, rule=rule)
    job = world.submit(outputs=ASKED)
    assert seen_after(world, job, 95) is None
    assert world.logged(Kind.PUBLISHED) == []
    assert "mailbox.publish" not in world.effects.calls


def test_only_what_is_new_leaves_and_each_time_the_log_has_it_first(tmp_path: Path) -> None:
    """Kills: sending before the record is synced; sending the same again and again."""
    world = a_world(tmp_path, seconds=400)
    job = world.submit(outputs=ASKED)

    async def story() -> None:
        async with world.serving():
            await world.until(lambda: world.job(job).snapshots == 1)
            started = world.clock.monotonic()
            await world.until(lambda: world.clock.monotonic() > started + 100)
            assert world.job(job).snapshots == 1
            (world.work_dirs(job)[0] / "progress").write_bytes(b"100")
            await world.until(lambda: world.job(job).snapshots == 2)

    simulate(world.clock, story)
    seen = shown(world, job)
    records = world.logged(Kind.PUBLISHED)
    assert [record.facts["progress"] for record in records] == [40, 100]
    assert seen is not None
    assert seen.receipt in {link.digest for link in world.journal.links}
    calls = [c for c in world.effects.calls if c in ("journal.append", "mailbox.publish")]
    for at, call in enumerate(calls):
        assert call != "mailbox.publish" or calls[at - 1] == "journal.append"


@pytest.mark.parametrize(
    ("text", "percent"),
    [
        (b"0", 0),
        (b" 99.99\n", 99),
        (b"100.0", 100),
        (b"100.1", None),
        (b"101", None),
        (b"-1", None),
        (b"nan", None),
        (b"1e1", None),
        (b"40 secret", None),
        (b"", None),
        (b"\xef\xbc\x94\xef\xbc\x90", None),
        (b"4" * 40, None),
    ],
)
def test_of_a_progress_a_whole_percentage_leaves_or_nothing(
    tmp_path: Path, text: bytes, percent: int | None
) -> None:
    """Kills a lax number, by which a program could say more than how far it is."""
    world = a_world(tmp_path)
    world.plays["solve"] = [Play(seconds=100, leave=leaves(progress=text))]
    seen = seen_after(world, world.submit(outputs=[]), 40)
    assert (seen.progress if seen else None) == percent


SECRET = b"SECRET-mesh"


def linked(work: Path) -> None:
    (work.parent / "secret").write_bytes(SECRET)
    (work / "a.csv").symlink_to("../secret")
    os.link(work.parent / "secret", work / "b.csv")
    (work / "progress").symlink_to("../secret")
    os.mkfifo(work / "c.csv")


def test_nothing_is_shown_through_links(tmp_path: Path) -> None:
    """With a naive reader of the same names the secret comes out: the control below."""
    world = a_world(tmp_path)
    world.plays["solve"] = [Play(seconds=100, leave=linked)]
    job = world.submit(outputs=["*.csv"])
    assert seen_after(world, job, 95) is None
    naive = (world.work_dirs(job)[0] / "a.csv").read_bytes()
    assert naive == SECRET


def growing(work: Path) -> None:
    (work / "life.csv").write_bytes(b"x" * 101)


def test_a_file_above_its_limit_is_not_shown(tmp_path: Path) -> None:
    world = a_world(tmp_path)
    world.plays["solve"] = [Play(seconds=100, leave=growing)]
    assert seen_after(world, world.submit(outputs=["*.csv"]), 95) is None


def test_a_line_that_is_cut_costs_snapshots_and_nothing_else(tmp_path: Path) -> None:
    world = a_world(tmp_path)
    job = world.submit(outputs=ASKED)
    world.fail("mailbox.publish", Unreachable(why="cut"), times=1)

    async def story() -> str:
        async with world.serving():
            return await world.ended(job)

    assert simulate(world.clock, story) == "succeeded"
    seen = shown(world, job)
    assert seen is not None
    assert world.effects.calls.count("mailbox.publish") == 2


def test_when_the_log_cannot_be_written_nothing_is_shown(tmp_path: Path) -> None:
    """P6: no byte leaves without its record."""
    world = a_world(tmp_path)
    job = world.submit(outputs=ASKED)
    real = world.journal.append

    def refusing(records: list[object]) -> object:
        if any(getattr(r, "kind", None) is Kind.PUBLISHED for r in records):
            raise Unreachable(why="disk")
        return real(records)

    world.journal.append = refusing
    assert seen_after(world, job, 95) is None
    assert "mailbox.publish" not in world.effects.calls


def test_an_agent_that_comes_back_goes_on_showing(tmp_path: Path) -> None:
    world = a_world(tmp_path, seconds=300)
    job = world.submit(outputs=ASKED)
    assert seen_after(world, job, 10) is None
    seen = seen_after(world, job, 70)
    assert seen is not None
    assert verify([link.line for link in world.journal.links])[1] is None


def test_a_manifest_that_takes_its_word_back_is_heard(tmp_path: Path) -> None:
    world = a_world(tmp_path, seconds=300)
    job = world.submit(outputs=ASKED)

    async def story() -> None:
        async with world.serving():
            await world.until(lambda: world.job(job).snapshots == 1)
            world.edit(publish=None)
            (world.work_dirs(job)[0] / "progress").write_bytes(b"77")
            began = world.clock.monotonic()
            await world.until(lambda: world.clock.monotonic() > began + 120)

    simulate(world.clock, story)
    seen = shown(world, job)
    assert seen is not None
    assert seen.progress == 40


def test_the_broker_keeps_snapshots_of_running_jobs_only_and_from_their_holder(
    tmp_path: Path,
) -> None:
    world = a_world(tmp_path)
    job = world.submit(outputs=ASKED)

    def publishing(epoch: int, instance: str = INSTANCE, site: str = SITE) -> Callable[[], object]:
        message = Publish(epoch=epoch, instance=instance, snapshot=b"{}")
        return lambda: world.broker.publications.publish(site, job, message)

    with pytest.raises(StaleEpoch):
        publishing(1)()
    seen_after(world, job, 40)
    stale = [publishing(2), publishing(1, "ins_" + "1" * 26)]
    for refused in stale:
        with pytest.raises(StaleEpoch):
            refused()
    with pytest.raises(NotFound):
        publishing(1, site="two")()
    with pytest.raises(NotFound):
        world.broker.publications.last("bob", job)

    async def story() -> None:
        async with world.serving():
            await world.ended(job)

    simulate(world.clock, story)
    with pytest.raises(InvalidTransition):
        publishing(1)()
    kept = world.broker.jobs.get(job, Tenant(submitter=USER))
    assert kept.changed_at is not None
    assert kept.changed_at > NOW
    assert shown(world, job) is not None
