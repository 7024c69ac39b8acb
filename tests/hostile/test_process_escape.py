"""Commands that try to leave something running when their end is told (threats A9, C14).

The oracle is a pipe that the first process opens and every descendant inherits: it has a reader for
as long as one of them lives, whatever that one has done to its name, session, parents or place.
"""
# ruff: noqa: ASYNC240 - a test may block its own loop for a small local file

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from sekisho.domain.launch import LaunchLimits
from sekisho.site.scheduler import (
    Exited,
    Gone,
    LaunchSpec,
    Running,
    Scheduler,
    Ticket,
)
from tests.launching import (
    PYTHON,
    SweepingScheduler,
    a_gate,
    a_launch,
    a_scheduler,
    filled,
    over,
    release,
    runs,
    until,
)

pytestmark = pytest.mark.anyio

#: Every program starts with this: its work directory, the oracle, and ways to slip away.
PRELUDE = """
import os, signal, sys
work = os.getcwd()
os.set_inheritable(os.open('oracle', os.O_RDONLY | os.O_NONBLOCK), True)
def say(name):
    with open(work + '/' + name, 'w') as out:
        out.write(str(os.getpid()) + '\\n')
def wait_for(name):
    while not os.path.exists(work + '/' + name):
        pass
def pause():
    while True:
        signal.pause()
def daemon(name, environment=None, session=True, place='/'):
    if os.fork():
        return
    if session:
        os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir(place)
    loop = 'import signal, sys; open(sys.argv[1], "w").close()\\nwhile True: signal.pause()'
    argv = [sys.executable, '-I', '-S', '-c', loop, work + '/' + name]
    os.execve(sys.executable, argv, environment or {})
"""
ONE = "daemon('there'); wait_for('there'); sys.exit(3)"


@pytest.fixture
async def scheduler() -> AsyncIterator[SweepingScheduler]:
    async with a_scheduler() as scheduler:
        yield scheduler


def a_hostile(base: Path, program: str, limits: LaunchLimits | None = None) -> LaunchSpec:
    spec = a_launch(base, *PYTHON, PRELUDE + program, limits=limits)
    os.mkfifo(Path(spec.work_dir, "oracle"))
    return spec


def something_lives(work_dir: str | Path) -> bool:
    try:
        os.close(os.open(Path(work_dir, "oracle"), os.O_WRONLY | os.O_NONBLOCK))
    except OSError as fault:
        if fault.errno == errno.ENXIO:
            return False
        raise
    return True


async def exit_of(scheduler: Scheduler, ticket: Ticket) -> tuple[int, int]:
    """Wait for the exit record, and look at the oracle in the same breath."""
    seen = await over(scheduler, ticket)
    assert not something_lives(ticket.work_dir)
    assert isinstance(seen, Exited)
    return seen.exit.code, seen.exit.signal


# ---------------------------------------------------------------- while the wrapper lives


async def test_a_daemon_is_dead_when_the_end_is_told(scheduler: Scheduler, tmp_path: Path) -> None:
    spec = a_hostile(tmp_path, ONE)
    assert await exit_of(scheduler, await scheduler.submit(spec)) == (3, 0)


async def test_the_control_the_same_daemon_outlives_a_plain_parent(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "oracle")
    os.mkfifo(tmp_path / "end")
    program = PRELUDE.replace("while True: signal.pause()'", 'open(sys.argv[1] + ".end").read()\'')
    assert program != PRELUDE
    Path(tmp_path, "there.end").symlink_to("end")
    command = [*PYTHON, program + ONE]
    nothing = subprocess.DEVNULL
    await anyio.run_process(command, cwd=tmp_path, check=False, stdout=nothing, stderr=nothing)
    assert something_lives(tmp_path)
    await anyio.to_thread.run_sync(release, tmp_path / "end")
    await until(lambda: not something_lives(tmp_path))


async def test_fifty_daemons_are_dead_when_the_end_is_told(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    program = "[daemon(f'there{n}') for n in range(50)]\nfor n in range(50): wait_for(f'there{n}')"
    spec = a_hostile(tmp_path, program)
    assert await exit_of(scheduler, await scheduler.submit(spec)) == (0, 0)
    assert len(list(Path(spec.work_dir).glob("there*"))) == 50


async def test_a_process_that_never_stays_the_same_is_caught(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    """It forks and ends, forks and ends: a list of processes is old when it is read."""
    program = """
if os.fork():
    wait_for('there')
    sys.exit(0)
os.setsid()
for generation in range(30_000):
    if os.fork():
        os._exit(0)
    if generation == 20:
        say('there')
say('survived')
"""
    spec = a_hostile(tmp_path, program)
    assert await exit_of(scheduler, await scheduler.submit(spec)) == (0, 0)
    assert not Path(spec.work_dir, "survived").exists()


@pytest.mark.parametrize(("limit", "least", "most"), [(20, 0, 20), (None, 60, 60)])
async def test_a_fork_bomb_stops_at_its_limit_and_is_cleared_away(
    scheduler: Scheduler, tmp_path: Path, limit: int | None, least: int, most: int
) -> None:
    """The second row is the control: without a limit it gets all the processes that it wants."""
    program = """
if os.getuid() == 0:
    os.setuid(65534)  # root has no limit
made = 0
try:
    while made < 60:
        if os.fork() == 0:
            pause()
        made += 1
except BlockingIOError:
    pass
print(made, flush=True)
"""
    spec = a_hostile(tmp_path, program, LaunchLimits(max_processes=limit))
    assert await exit_of(scheduler, await scheduler.submit(spec)) == (0, 0)
    assert least <= int(Path(spec.control_dir, "stdout").read_text()) <= most


async def test_a_tree_that_ignores_every_request_is_ended_by_force(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    program = """
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
for _ in range(6):
    if os.fork() == 0:
        os.setsid()
open(work + '/' + str(os.getpid()) + '.up', 'w').close()
pause()
"""
    spec = a_hostile(tmp_path, program)
    ticket = await scheduler.submit(spec)
    await until(lambda: len(list(Path(spec.work_dir).glob("*.up"))) == 64)
    await scheduler.cancel(ticket, force=False)
    assert await scheduler.observe([ticket]) == {ticket: Running()}
    await scheduler.cancel(ticket, force=True)
    assert await exit_of(scheduler, ticket) == (137, 9)


async def test_a_family_that_replaces_its_dead_is_ended_by_force(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    program = """
def guard(depth):
    while True:
        child = os.fork()
        if child == 0:
            os.setsid()
            guard(depth - 1) if depth else pause()
        os.waitpid(child, 0)
say('there')
guard(20)
"""
    spec = a_hostile(tmp_path, program)
    ticket = await scheduler.submit(spec)
    await filled(Path(spec.work_dir, "there"))
    await scheduler.cancel(ticket, force=True)
    assert await exit_of(scheduler, ticket) == (137, 9)


async def test_a_command_that_stops_its_wrapper_cannot_stop_its_end(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    program = "os.kill(os.getppid(), signal.SIGSTOP); say('there'); sys.exit(4)"
    spec = a_hostile(tmp_path, program)
    ticket = await scheduler.submit(spec)
    await filled(Path(spec.work_dir, "there"))
    await until(lambda: not something_lives(spec.work_dir))
    assert await scheduler.observe([ticket]) == {ticket: Running()}
    await scheduler.cancel(ticket, force=True)
    assert await exit_of(scheduler, ticket) == (4, 0)


# ---------------------------------------------------------------- when it kills the wrapper


async def test_whoever_kills_the_wrapper_is_ended_by_the_spawner(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    program = """
[daemon(f'there{n}') for n in range(5)]
for n in range(5): wait_for(f'there{n}')
os.kill(os.getppid(), signal.SIGKILL)
pause()
"""
    spec = a_hostile(tmp_path, program)
    ticket = await scheduler.submit(spec)
    assert await over(scheduler, ticket) == Gone()
    await until(lambda: not something_lives(spec.work_dir))


@pytest.mark.parametrize(
    "daemon",
    [
        "daemon('there', session=False)",
        "daemon('there', environment=os.environ)",
        "daemon('there', place=work)",
    ],
    ids=["known by session", "known by environment", "known by place"],
)
async def test_what_outlives_wrapper_and_agent_is_still_running_and_can_be_ended(
    scheduler: SweepingScheduler, tmp_path: Path, daemon: str
) -> None:
    spec = a_hostile(
        tmp_path,
        f"say('up'); open('gate').read(); {daemon}; wait_for('there');"
        "os.kill(os.getppid(), signal.SIGKILL)",
    )
    gate = a_gate(spec)
    ticket = await scheduler.submit(spec)
    first = int(await filled(Path(spec.work_dir, "up")))
    await scheduler.spawner.aclose()  # as when the agent dies
    await anyio.to_thread.run_sync(release, gate)
    wrapper = int(ticket.reference.split(":")[0])
    await until(lambda: not runs(wrapper) and not runs(first))
    assert something_lives(spec.work_dir)
    assert await scheduler.observe([ticket]) == {ticket: Running()}
    before = time.monotonic()
    await scheduler.changed([ticket], 0.1)
    assert time.monotonic() - before >= 0.1
    await scheduler.cancel(ticket, force=True)
    assert await over(scheduler, ticket) == Gone()
    assert not something_lives(spec.work_dir)


async def test_the_processes_of_another_job_are_left_alone(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    one, other = (a_hostile(tmp_path, "say('up'); pause()") for _ in range(2))
    tickets = [await scheduler.submit(spec) for spec in (one, other)]
    for spec in (one, other):
        await filled(Path(spec.work_dir, "up"))
    await scheduler.cancel(tickets[0], force=True)
    assert await exit_of(scheduler, tickets[0]) == (137, 9)
    assert something_lives(other.work_dir)
    assert await scheduler.observe([tickets[1]]) == {tickets[1]: Running()}
    await scheduler.cancel(tickets[1], force=True)
    assert await exit_of(scheduler, tickets[1]) == (137, 9)


# ---------------------------------------------------------------- false witness


async def test_a_forged_exit_record_is_not_believed_while_the_command_runs(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    program = """
words = open(f'/proc/{os.getppid()}/cmdline').read().split('\\0')
control, token = words[2], words[3]
with open(control + '/exit', 'w') as record:
    record.write(f'exit {token} 0 1700000000 1700000001 .\\n')
say('forged')
open('gate').read()
sys.exit(6)
"""
    spec = a_hostile(tmp_path, program)
    gate = a_gate(spec)
    ticket = await scheduler.submit(spec)
    await filled(Path(spec.work_dir, "forged"))
    assert await scheduler.observe([ticket]) == {ticket: Running()}
    await anyio.to_thread.run_sync(release, gate)
    assert await exit_of(scheduler, ticket) == (6, 0)


async def test_a_command_that_deletes_its_latch_is_not_taken_for_not_started(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    program = """
import shutil
control = open(f'/proc/{os.getppid()}/cmdline').read().split('\\0')[2]
shutil.rmtree(control)
"""
    spec = a_hostile(tmp_path, program)
    assert await over(scheduler, await scheduler.submit(spec)) == Gone()
