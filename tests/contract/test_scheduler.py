"""What every scheduler must do. A new one subclasses `SchedulerContract` and gives its fixtures."""
# ruff: noqa: ASYNC240 - a test may block its own loop for a small local file

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC
from pathlib import Path

import anyio
import pytest

from sekisho.adapters.hosts.process_tree import open_process
from sekisho.domain.errors import Corrupt
from sekisho.domain.launch import LaunchLimits
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
from tests.launching import (
    PYTHON,
    SHELL,
    a_gate,
    a_launch,
    a_scheduler,
    filled,
    over,
    release,
    runs,
)

IGNORE_TERM = "trap '' TERM; echo $$ >pid; while :; do read -r line <gate; done"
POLITE = "echo $$ >pid; read -r line <gate"


async def ended(scheduler: Scheduler, spec: LaunchSpec) -> tuple[int, int]:
    seen = await over(scheduler, await scheduler.submit(spec))
    assert isinstance(seen, Exited)
    return seen.exit.code, seen.exit.signal


@pytest.mark.anyio
class SchedulerContract:
    """Wants fixtures ``scheduler`` and ``tmp_path``, and a ticket of something never submitted."""

    leaves_what_ignores_it = True  #: whether a polite cancel is no more than that

    def never_submitted(self, spec: LaunchSpec) -> Ticket:
        raise NotImplementedError

    def ended_politely(self, seen: Observation) -> None:
        """Check what is seen of a command that ended when it was asked to."""
        assert isinstance(seen, Exited)
        assert (seen.exit.code, seen.exit.signal) == (143, 15)

    def ended_by_force(self, seen: Observation) -> None:
        """Check what is seen of a command that was killed: here its wrapper outlived it."""
        assert isinstance(seen, Exited)
        assert (seen.exit.code, seen.exit.signal) == (137, 9)

    @pytest.mark.parametrize("code", [0, 1, 3, 75, 128, 255])
    async def test_an_exit_code_arrives_as_it_was(
        self, scheduler: Scheduler, tmp_path: Path, code: int
    ) -> None:
        assert await ended(scheduler, a_launch(tmp_path, *SHELL, f"exit {code}")) == (code, 0)

    @pytest.mark.parametrize(("name", "number"), [("KILL", 9), ("SEGV", 11), ("INT", 2)])
    async def test_death_by_a_signal_is_told_with_the_signal(
        self, scheduler: Scheduler, tmp_path: Path, name: str, number: int
    ) -> None:
        spec = a_launch(tmp_path, *SHELL, f"kill -s {name} $$")
        assert await ended(scheduler, spec) == (128 + number, number)

    async def test_a_program_that_does_not_exist_ends_with_127(
        self, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        assert await ended(scheduler, a_launch(tmp_path, "/no/such/program")) == (127, 0)

    async def test_times_are_aware_and_in_order(self, scheduler: Scheduler, tmp_path: Path) -> None:
        before = int(time.time())
        seen = await over(scheduler, await scheduler.submit(a_launch(tmp_path, "/bin/true")))
        assert isinstance(seen, Exited)
        assert seen.exit.started_at.tzinfo is UTC
        assert before <= seen.exit.started_at.timestamp() <= seen.exit.ended_at.timestamp()

    async def test_output_goes_to_the_control_directory_and_input_is_empty(
        self, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        spec = a_launch(tmp_path, *SHELL, "cat; echo out; echo fault >&2; pwd >here")
        assert await ended(scheduler, spec) == (0, 0)
        assert Path(spec.control_dir, "stdout").read_text() == "out\n"
        assert Path(spec.control_dir, "stderr").read_text() == "fault\n"
        assert Path(spec.work_dir, "here").read_text() == f"{spec.work_dir}\n"

    async def test_two_submits_at_once_run_once_and_both_tickets_tell_the_end(
        self, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        spec = a_launch(tmp_path, *SHELL, "echo ran >>witness; exit 5")
        tickets: list[Ticket] = []

        async def submit() -> None:
            tickets.append(await scheduler.submit(spec))

        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(submit)
        for ticket in tickets:
            seen = await over(scheduler, ticket)
            assert isinstance(seen, Exited)
            assert seen.exit.code == 5
        assert Path(spec.work_dir, "witness").read_text() == "ran\n"

    async def test_a_submit_after_the_end_does_not_run_again(
        self, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        spec = a_launch(tmp_path, *SHELL, "echo ran >>witness; exit 5")
        assert await ended(scheduler, spec) == (5, 0)
        assert await ended(scheduler, spec) == (5, 0)
        assert Path(spec.work_dir, "witness").read_text() == "ran\n"

    async def test_what_runs_is_seen_running_and_its_end_is_news(
        self, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        spec = a_launch(tmp_path, *SHELL, POLITE)
        gate = a_gate(spec)
        ticket = await scheduler.submit(spec)
        await filled(Path(spec.work_dir, "pid"))
        assert await scheduler.observe([ticket]) == {ticket: Running()}
        async with anyio.create_task_group() as group:
            with anyio.fail_after(50):
                group.start_soon(anyio.to_thread.run_sync, release, gate)
                await scheduler.changed([ticket], 60)
        assert isinstance(await over(scheduler, ticket), Exited)

    async def test_no_news_takes_the_whole_time(self, scheduler: Scheduler, tmp_path: Path) -> None:
        spec = a_launch(tmp_path, *SHELL, POLITE)
        a_gate(spec)
        ticket = await scheduler.submit(spec)
        await filled(Path(spec.work_dir, "pid"))
        before = time.monotonic()
        await scheduler.changed([ticket], 0.2)
        assert time.monotonic() - before >= 0.2
        await scheduler.cancel(ticket, force=True)

    async def test_no_tickets_take_the_whole_time(self, scheduler: Scheduler) -> None:
        before = time.monotonic()
        await scheduler.changed([], 0.05)
        assert time.monotonic() - before >= 0.05

    async def test_a_submitted_command_is_soon_seen_running(
        self, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        spec = a_launch(tmp_path, *SHELL, POLITE)
        a_gate(spec)
        ticket = await scheduler.submit(spec)
        seen: Observation = Pending()
        with anyio.fail_after(60):
            while seen == Pending():
                await scheduler.changed([ticket], 0.5)
                seen = (await scheduler.observe([ticket]))[ticket]
        assert seen == Running()
        await scheduler.cancel(ticket, force=True)

    async def test_a_polite_cancel_ends_the_command_and_its_children(
        self, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        # A batch system signals one process after the other: a shell may see its child's end first.
        spec = a_launch(tmp_path, *SHELL, f"sh -c '{POLITE}'; exit $?")
        a_gate(spec)
        ticket = await scheduler.submit(spec)
        child = int(await filled(Path(spec.work_dir, "pid")))
        await scheduler.cancel(ticket, force=False)
        self.ended_politely(await over(scheduler, ticket))
        assert not runs(child)

    async def test_a_command_that_ignores_the_polite_cancel_is_ended_by_force(
        self, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        spec = a_launch(tmp_path, *SHELL, IGNORE_TERM)
        a_gate(spec)
        ticket = await scheduler.submit(spec)
        await filled(Path(spec.work_dir, "pid"))
        await scheduler.cancel(ticket, force=False)
        if self.leaves_what_ignores_it:
            await scheduler.changed([ticket], 0.2)
            assert await scheduler.observe([ticket]) == {ticket: Running()}
            await scheduler.cancel(ticket, force=True)
        self.ended_by_force(await over(scheduler, ticket))

    async def test_a_cancel_after_the_end_changes_nothing(
        self, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        ticket = await scheduler.submit(a_launch(tmp_path, *SHELL, "exit 4"))
        first = await over(scheduler, ticket)
        await scheduler.cancel(ticket, force=False)
        await scheduler.cancel(ticket, force=True)
        assert await over(scheduler, ticket) == first

    async def test_what_runs_is_found_by_its_token_only(
        self, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        spec = a_launch(tmp_path, *SHELL, POLITE)
        gate = a_gate(spec)
        ticket = await scheduler.submit(spec)
        await filled(Path(spec.work_dir, "pid"))
        assert await scheduler.find(spec) == ticket
        assert await scheduler.find(replace(spec, token=spec.token[:-1])) is None
        await anyio.to_thread.run_sync(release, gate)
        await over(scheduler, ticket)
        assert await scheduler.find(spec) is None

    async def test_what_was_never_submitted_has_not_started(
        self, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        ticket = self.never_submitted(a_launch(tmp_path, "/bin/true"))
        assert await scheduler.observe([ticket]) == {ticket: NotStarted()}

    async def test_a_taken_latch_without_process_and_record_is_an_unknown_fate(
        self, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        spec = a_launch(tmp_path, "/bin/true")
        Path(spec.control_dir, "latch").mkdir()
        ticket = await scheduler.submit(spec)
        assert await over(scheduler, ticket) == Gone()

    @pytest.mark.parametrize(
        "text",
        [
            "exit {other} 0 1700000000 1700000001 .\n",
            "exit {token} 0 1700000000\n",
            "exit {token} zero 1700000000 1700000001 .\n",
            "{token} 0 1700000000 1700000001 .\n",
            "exit {token} 0 1700000000 1700000001 . exit {token} 1 1 1 .\n",
            "",
        ],
    )
    async def test_a_foreign_or_torn_record_is_not_believed(
        self, scheduler: Scheduler, tmp_path: Path, text: str
    ) -> None:
        spec = a_launch(tmp_path, "/bin/true")
        Path(spec.control_dir, "latch").mkdir()
        words = text.format(token=spec.token, other=spec.token[::-1])
        Path(spec.control_dir, "exit").write_text(words)
        assert await over(scheduler, await scheduler.submit(spec)) == Gone()

    async def test_a_record_that_is_a_link_is_not_believed(
        self, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        spec = a_launch(tmp_path, "/bin/true")
        Path(spec.control_dir, "latch").mkdir()
        planted = Path(spec.work_dir, "planted")
        planted.write_text(f"exit {spec.token} 0 1700000000 1700000001 .\n")
        Path(spec.control_dir, "exit").symlink_to(planted)
        assert await over(scheduler, await scheduler.submit(spec)) == Gone()
        Path(spec.control_dir, "exit").unlink()
        planted.rename(Path(spec.control_dir, "exit"))  # the control: the same bytes, no link
        assert isinstance(await over(scheduler, await scheduler.submit(spec)), Exited)

    async def test_what_was_left_in_the_background_is_dead_when_the_end_is_told(
        self, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        spec = a_launch(tmp_path, *SHELL, f"sh -c '{POLITE}' & until test -s pid; do :; done")
        a_gate(spec)
        assert await ended(scheduler, spec) == (0, 0)
        assert not runs(int(Path(spec.work_dir, "pid").read_text()))

    async def test_limits_bind_the_command(self, scheduler: Scheduler, tmp_path: Path) -> None:
        limits = LaunchLimits(max_file_bytes=8192, max_open_files=40, max_processes=7777)
        look = "ulimit -f; ulimit -n; ulimit -c; cat /proc/self/limits"
        spec = a_launch(tmp_path, *SHELL, look, limits=limits)
        assert await ended(scheduler, spec) == (0, 0)
        told = Path(spec.control_dir, "stdout").read_text()
        assert told.splitlines()[:3] == ["16", "40", "0"]
        assert "Max processes 7777 7777 processes" in " ".join(told.split())

    async def test_a_file_beyond_its_limit_ends_the_command(
        self, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        spec = a_launch(tmp_path, "/usr/bin/yes", limits=LaunchLimits(max_file_bytes=102_400))
        assert await ended(scheduler, spec) == (128 + 25, 25)
        assert Path(spec.control_dir, "stdout").stat().st_size == 102_400

    async def test_a_ticket_survives_the_journal(
        self, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        ticket = await scheduler.submit(a_launch(tmp_path, *SHELL, "exit 6"))
        again = Ticket.decode(ticket.encode())
        assert again == ticket
        assert isinstance(await over(scheduler, again), Exited)

    async def test_many_at_once_are_told_apart(self, scheduler: Scheduler, tmp_path: Path) -> None:
        tickets: dict[Ticket, int] = {}

        async def submit(code: int) -> None:
            spec = a_launch(tmp_path, *PYTHON, f"raise SystemExit({code})")
            tickets[await scheduler.submit(spec)] = code

        async with anyio.create_task_group() as group:
            for code in range(1, 33):
                group.start_soon(submit, code)
        for ticket, code in tickets.items():
            seen = await over(scheduler, ticket)
            assert isinstance(seen, Exited)
            assert seen.exit.code == code


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"token":1}', "\x00"])
def test_a_spoiled_ticket_is_a_fault_of_our_state(text: str) -> None:
    with pytest.raises(Corrupt):
        Ticket.decode(text)


class TestLocalScheduler(SchedulerContract):
    """The local scheduler under both shells that are /bin/sh somewhere, and on an old kernel."""

    @pytest.fixture(params=["sh", "bash", "no process descriptors"])
    async def scheduler(self, request: pytest.FixtureRequest) -> AsyncIterator[Scheduler]:
        shell = ("/bin/bash", "--posix") if request.param == "bash" else ("/bin/sh",)
        old = request.param == "no process descriptors"
        async with a_scheduler(
            shell=shell, hold=(lambda _: None) if old else open_process
        ) as scheduler:
            yield scheduler

    def never_submitted(self, spec: LaunchSpec) -> Ticket:
        return Ticket(
            token=spec.token,
            work_dir=spec.work_dir,
            control_dir=spec.control_dir,
            reference="1:1:00000000-0000-0000-0000-000000000000",
        )

    @pytest.mark.anyio
    async def test_a_spoiled_reference_is_a_fault_of_our_state(
        self, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        ticket = self.never_submitted(a_launch(tmp_path, "/bin/true"))
        with pytest.raises(Corrupt):
            await scheduler.observe([replace(ticket, reference="12")])
