"""What the runner relies on of a scheduler, of one without processes and of a real one alike.

`tests/contract/test_scheduler.py` holds real schedulers to more: shells, limits, process groups.
"""
# ruff: noqa: ASYNC240 - a test may block its own loop for a small local file

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from sekisho.adapters.clock_system import SystemClock
from sekisho.adapters.hosts.spawn_local import LocalSpawner
from sekisho.adapters.scheduler_memory import MemoryScheduler, Play
from sekisho.adapters.schedulers.local import LocalScheduler
from sekisho.site.scheduler import (
    Exited,
    Gone,
    LaunchSpec,
    NotStarted,
    Observation,
    Pending,
    Running,
    Scheduler,
    Ticket,
)
from tests.launching import SHELL, a_launch, over

SCRIPTS = {
    "well": ("exit 0", Play()),
    "badly": ("exit 3", Play(code=3)),
    "waits": ("sleep 60", Play(seconds=60)),
    "stubborn": ("trap '' TERM; while :; do sleep 1; done", Play(seconds=60, on_term=None)),
    "polite": ("trap 'exit 0' TERM; while :; do sleep 0.1; done", Play(seconds=60, on_term=0)),
}


@pytest.mark.anyio
class Life:
    """Wants a fixture ``scheduler``."""

    def spec(self, base: Path, name: str) -> LaunchSpec:
        script, _ = SCRIPTS[name]
        return a_launch(base, *SHELL, f"echo ran >>witness; {script}", name)

    async def running(self, scheduler: Scheduler, spec: LaunchSpec) -> Ticket:
        """Submit, and return when the command itself runs."""
        ticket = await scheduler.submit(spec)
        with anyio.fail_after(20):
            while not Path(spec.work_dir, "witness").exists():
                await scheduler.observe([ticket])
                await scheduler.changed([ticket], 0.02)
        assert await scheduler.observe([ticket]) == {ticket: Running()}
        return ticket

    @staticmethod
    async def end(scheduler: Scheduler, ticket: Ticket) -> tuple[int, int]:
        seen: Observation = await over(scheduler, ticket)
        assert isinstance(seen, Exited)
        assert seen.exit.started_at <= seen.exit.ended_at
        return seen.exit.code, seen.exit.signal

    @pytest.mark.parametrize(("name", "code"), [("well", 0), ("badly", 3)])
    async def test_an_end_is_told_with_its_code(
        self, scheduler: Scheduler, tmp_path: Path, name: str, code: int
    ) -> None:
        ticket = await scheduler.submit(self.spec(tmp_path, name))
        assert await self.end(scheduler, ticket) == (code, 0)

    async def test_the_same_spec_starts_once_however_often_it_is_submitted(
        self, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        spec = self.spec(tmp_path, "badly")
        tickets = [await scheduler.submit(spec) for _ in range(3)]
        assert [await self.end(scheduler, ticket) for ticket in tickets] == [(3, 0)] * 3
        assert await self.end(scheduler, await scheduler.submit(spec)) == (3, 0)
        assert Path(spec.work_dir, "witness").read_text() == "ran\n"

    @pytest.mark.parametrize(
        ("name", "force", "end"),
        [
            ("waits", False, (143, 15)),
            ("waits", True, (137, 9)),
            ("polite", False, (0, 0)),
            ("stubborn", True, (137, 9)),
        ],
    )
    async def test_a_stop_is_told_as_it_came(
        self, scheduler: Scheduler, tmp_path: Path, name: str, force: bool, end: tuple[int, int]
    ) -> None:
        spec = self.spec(tmp_path, name)
        ticket = await self.running(scheduler, spec)
        with anyio.fail_after(20):
            while isinstance((await scheduler.observe([ticket]))[ticket], Running):
                await scheduler.cancel(ticket, force=force)
                await scheduler.changed([ticket], 0.2)
        assert await self.end(scheduler, ticket) == end
        await scheduler.cancel(ticket, force=True)
        assert await self.end(scheduler, ticket) == end

    async def test_a_stubborn_command_survives_a_polite_request(
        self, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        ticket = await self.running(scheduler, self.spec(tmp_path, "stubborn"))
        await scheduler.cancel(ticket, force=False)
        await scheduler.changed([ticket], 0.2)
        assert await scheduler.observe([ticket]) == {ticket: Running()}
        await scheduler.cancel(ticket, force=True)
        assert await self.end(scheduler, ticket) == (137, 9)

    async def test_no_news_takes_the_whole_time(self, scheduler: Scheduler, tmp_path: Path) -> None:
        ticket = await self.running(scheduler, self.spec(tmp_path, "waits"))
        for tickets in ([ticket], []):
            before = time.monotonic()
            await scheduler.changed(tickets, 0.2)
            assert time.monotonic() - before >= 0.19
        await scheduler.cancel(ticket, force=True)
        await over(scheduler, ticket)

    async def test_an_end_is_news(self, scheduler: Scheduler, tmp_path: Path) -> None:
        ticket = await self.running(scheduler, self.spec(tmp_path, "waits"))
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(scheduler.changed, [ticket], 50)
                await scheduler.cancel(ticket, force=True)
            await over(scheduler, ticket)
            await scheduler.changed([ticket], 50)

    async def test_what_runs_is_found_by_its_token_and_only_while_it_runs(
        self, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        spec = self.spec(tmp_path, "waits")
        ticket = await self.running(scheduler, spec)
        assert await scheduler.find(spec) == ticket
        assert await scheduler.find(replace(spec, token=spec.token[:-1])) is None
        await scheduler.cancel(ticket, force=True)
        await over(scheduler, ticket)
        assert await scheduler.find(spec) is None

    async def test_what_was_never_submitted_has_not_started(
        self, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        spec = self.spec(tmp_path, "well")
        never = Ticket(
            token=spec.token,
            work_dir=spec.work_dir,
            control_dir=spec.control_dir,
            reference="1:1:00000000-0000-0000-0000-000000000000",
        )
        assert await scheduler.observe([never]) == {never: NotStarted()}


def witness(work: Path) -> None:
    with (work / "witness").open("a") as file:
        file.write("ran\n")


class TestMemoryScheduler(Life):
    @pytest.fixture
    def scheduler(self) -> Scheduler:
        return MemoryScheduler(SystemClock(), self.cast)

    @staticmethod
    def cast(spec: LaunchSpec) -> Play:
        play = SCRIPTS[spec.argv[-1]][1]
        return Play(
            seconds=play.seconds,
            code=play.code,
            on_term=play.on_term,
            leave=witness,
        )

    @pytest.mark.anyio
    async def test_a_play_may_wait_vanish_or_never_start(self, tmp_path: Path) -> None:
        plays = {
            "waits": (Play(pending_s=60), Pending()),
            "well": (Play(fate="vanishes"), Gone()),
            "badly": (Play(fate="never starts"), NotStarted()),
        }
        scheduler = MemoryScheduler(SystemClock(), lambda spec: plays[spec.argv[-1]][0])
        for name, (_, seen) in plays.items():
            ticket = await scheduler.submit(self.spec(tmp_path, name))
            assert await scheduler.observe([ticket]) == {ticket: seen}
        assert len(scheduler.started) == 1

    @pytest.mark.anyio
    async def test_what_the_machine_loses_is_gone(self, tmp_path: Path) -> None:
        scheduler = MemoryScheduler(SystemClock(), self.cast)
        spec = self.spec(tmp_path, "waits")
        ticket = await self.running(scheduler, spec)
        scheduler.vanish(spec.token)
        assert await scheduler.observe([ticket]) == {ticket: Gone()}


class TestLocalScheduler(Life):
    @pytest.fixture
    async def scheduler(self) -> AsyncIterator[Scheduler]:
        async with LocalSpawner() as spawner:
            yield LocalScheduler(spawner)
