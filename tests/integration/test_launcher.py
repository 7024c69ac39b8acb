"""The local launcher with real processes: what cannot start, and what outlives a death."""
# ruff: noqa: ASYNC220, ASYNC240 - a test may block its own loop for a small local file

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from sekisho.adapters.hosts.process_tree import (
    WRAPPER,
    Process,
    ProcessRef,
    Trace,
    alive,
    boot_id,
    booted_at,
    find_wrapper,
    kill,
    look,
    send,
)
from sekisho.adapters.hosts.spawn_local import LocalSpawner, SpawnRequest
from sekisho.adapters.schedulers import record
from sekisho.adapters.schedulers.local import LocalScheduler
from sekisho.domain.errors import SekishoError, Unavailable
from sekisho.site.scheduler import (
    Exited,
    Gone,
    LaunchSpec,
    NotStarted,
    Running,
    Ticket,
)
from tests.launching import (
    SHELL,
    SweepingScheduler,
    a_gate,
    a_launch,
    a_scheduler,
    filled,
    output,
    over,
    release,
    runs,
    until,
)

pytestmark = pytest.mark.anyio
WAIT = "echo $$ >pid; read -r line <gate; exit 7"


@pytest.fixture
async def scheduler() -> AsyncIterator[SweepingScheduler]:
    async with a_scheduler() as scheduler:
        yield scheduler


@pytest.fixture
def spawner(scheduler: SweepingScheduler) -> LocalSpawner:
    return scheduler.spawner


# ------------------------------------------------------------------- what cannot start


async def test_a_start_that_fails_says_at_which_step(
    scheduler: LocalScheduler, tmp_path: Path
) -> None:
    spec = a_launch(tmp_path, "/bin/true")
    with pytest.raises(SekishoError) as fault:
        await scheduler.submit(replace(spec, work_dir=str(tmp_path / "absent")))
    assert fault.value.code == "launch.failed"
    assert fault.value.params == {"step": "work_dir", "error": "ENOENT"}
    long = tuple("x" * 100_000 for _ in range(100))
    with pytest.raises(SekishoError) as fault:
        await scheduler.submit(replace(spec, argv=("/bin/true", *long)))
    assert fault.value.params == {"step": "exec", "error": errno.errorcode[errno.E2BIG]}
    assert isinstance(await over(scheduler, await scheduler.submit(spec)), Exited)


async def test_without_a_control_directory_nothing_starts_and_nothing_is_promised(
    scheduler: LocalScheduler, tmp_path: Path
) -> None:
    spec = a_launch(tmp_path, *SHELL, "echo ran >witness")
    Path(spec.control_dir).rmdir()
    assert await over(scheduler, await scheduler.submit(spec)) == Gone()
    assert not Path(spec.work_dir, "witness").exists()


async def test_a_fault_before_the_start_gives_the_latch_back(
    scheduler: LocalScheduler, tmp_path: Path
) -> None:
    spec = a_launch(tmp_path, *SHELL, "echo ran >>witness")
    obstacle = Path(spec.control_dir, "exit.new")
    obstacle.mkdir()  # the room for the exit record cannot be taken
    assert await over(scheduler, await scheduler.submit(spec)) == NotStarted()
    assert not Path(spec.work_dir, "witness").exists()
    assert isinstance(await over(scheduler, await scheduler.submit(spec)), Exited)
    assert Path(spec.work_dir, "witness").read_text() == "ran\n"


async def test_the_room_for_the_exit_record_is_taken_before_the_start(
    scheduler: LocalScheduler, tmp_path: Path
) -> None:
    spec = a_launch(tmp_path, *SHELL, 'wc -c <"$0"/exit.new; ls "$0"')
    spec = replace(spec, argv=(*spec.argv, spec.control_dir), env={"PATH": "/usr/bin:/bin"})
    told = (await output(scheduler, spec)).split()
    assert told == [b"200", b"exit.new", b"latch", b"stderr", b"stdout"]
    assert Path(spec.control_dir, "exit").stat().st_size == 200


@pytest.mark.parametrize(("booted", "asked"), [((str(booted_at()),), []), ((), ["date"])])
async def test_a_wrapper_starts_no_program_that_it_need_not(
    tmp_path: Path, booted: tuple[str, ...], asked: list[str]
) -> None:
    """Kills: a program for what the shell can do itself. Each is a millisecond of every job."""
    spec = a_launch(tmp_path, "/bin/true")
    trace = tmp_path / "trace"
    words = (spec.control_dir, spec.token, "-", *booted, "--", *spec.argv)
    wrapper = ("/bin/sh", str(WRAPPER), *words)
    calls = ("strace", "-f", "-qq", "-e", "trace=execve", "-z", "-o", str(trace))
    await anyio.run_process([*calls, *wrapper], cwd=spec.work_dir, env=dict(spec.env))
    names = re.findall(r'execve\("[^"]*/([^"/]+)"', trace.read_text())
    assert names == ["sh", "mkdir", "sync", "true", *asked, "mv", "sync"]
    end = record.read_exit(spec.control_dir, spec.token)
    assert end is not None
    assert abs(end.ended_at.timestamp() - time.time()) < 60


async def test_callers_who_give_up_leave_the_spawner_in_step(
    scheduler: LocalScheduler, tmp_path: Path
) -> None:
    specs = [a_launch(tmp_path, *SHELL, f"exit {code}") for code in range(20)]
    for spec in specs:
        with anyio.move_on_after(0):
            await scheduler.submit(spec)
    for code, spec in enumerate(specs):
        seen = await over(scheduler, await scheduler.submit(spec))
        assert isinstance(seen, Exited)
        assert seen.exit.code == code


# ------------------------------------------------------------------- what outlives a death

AGENT = """
import sys
import anyio
from pathlib import Path
from sekisho.adapters.hosts.spawn_local import LocalSpawner
from sekisho.adapters.schedulers.local import LocalScheduler
from sekisho.site.scheduler import LaunchSpec
token, work, control, *argv = sys.argv[1:]
async def main():
    spawner = LocalSpawner()
    ticket = await LocalScheduler(spawner).submit(LaunchSpec(
        token=token, argv=tuple(argv), env={"CALC_DIR": work}, work_dir=work, control_dir=control))
    print(spawner.pid, ticket.encode(), flush=True)
    await anyio.sleep_forever()
anyio.run(main)
"""


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[LaunchSpec]:
    """A command that waits at a gate, then exits with 7."""
    spec = a_launch(tmp_path, *SHELL, WAIT)
    a_gate(spec)
    yield spec
    if left := find_wrapper(spec.token):
        kill(Trace(left.process, left.work_dir), 10)


@pytest.fixture
def agent(waiting: LaunchSpec) -> Iterator[subprocess.Popen[str]]:
    words = (waiting.token, waiting.work_dir, waiting.control_dir, *waiting.argv)
    process = subprocess.Popen(
        [sys.executable, "-c", AGENT, *words],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    with process:
        yield process
        process.kill()


async def test_a_job_outlives_a_killed_agent_and_is_found_again(
    scheduler: LocalScheduler, waiting: LaunchSpec, agent: subprocess.Popen[str]
) -> None:
    assert agent.stdout is not None
    spawner_pid, _, journaled = agent.stdout.readline().partition(" ")
    await filled(Path(waiting.work_dir, "pid"))
    agent.kill()
    await until(lambda: not runs(int(spawner_pid)))
    ticket = await scheduler.find(waiting)
    assert ticket == Ticket.decode(journaled)
    assert await scheduler.observe([ticket]) == {ticket: Running()}
    await anyio.to_thread.run_sync(release, Path(waiting.work_dir, "gate"))
    seen = await over(scheduler, ticket)
    assert isinstance(seen, Exited)
    assert seen.exit.code == 7


async def test_an_agent_that_forgot_its_ticket_submits_again_and_learns_the_first_end(
    scheduler: LocalScheduler, waiting: LaunchSpec, agent: subprocess.Popen[str]
) -> None:
    assert agent.stdout is not None
    agent.stdout.readline()
    pid = await filled(Path(waiting.work_dir, "pid"))
    agent.kill()
    ticket = await scheduler.submit(waiting)
    assert await scheduler.observe([ticket]) == {ticket: Running()}
    await anyio.to_thread.run_sync(release, Path(waiting.work_dir, "gate"))
    seen = await over(scheduler, ticket)
    assert isinstance(seen, Exited)
    assert seen.exit.code == 7
    assert Path(waiting.work_dir, "pid").read_text() == pid


async def test_a_job_outlives_a_killed_spawner_and_the_next_start_has_a_new_one(
    spawner: LocalSpawner, scheduler: LocalScheduler, waiting: LaunchSpec, tmp_path: Path
) -> None:
    ticket = await scheduler.submit(waiting)
    await filled(Path(waiting.work_dir, "pid"))
    first = spawner.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert isinstance(
        await over(scheduler, await scheduler.submit(a_launch(tmp_path, "/bin/true"))), Exited
    )
    assert spawner.pid != first
    assert await scheduler.observe([ticket]) == {ticket: Running()}
    await anyio.to_thread.run_sync(release, Path(waiting.work_dir, "gate"))
    assert isinstance(await over(scheduler, ticket), Exited)


async def test_a_spawner_that_does_not_answer_is_replaced(tmp_path: Path) -> None:
    async with LocalSpawner(timeout_s=0.3) as spawner:
        scheduler = LocalScheduler(spawner)
        await output(scheduler, a_launch(tmp_path, "/bin/true"))
        first = spawner.pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        with pytest.raises(Unavailable):
            await scheduler.submit(a_launch(tmp_path, "/bin/true"))
        assert not runs(first)
        await output(scheduler, a_launch(tmp_path, "/bin/true"))


async def test_a_group_signal_ends_the_command_but_not_its_record(
    scheduler: LocalScheduler, waiting: LaunchSpec
) -> None:
    ticket = await scheduler.submit(waiting)
    await filled(Path(waiting.work_dir, "pid"))
    os.killpg(int(ticket.reference.split(":")[0]), signal.SIGTERM)
    seen = await over(scheduler, ticket)
    assert isinstance(seen, Exited)
    assert seen.exit.signal == signal.SIGTERM


async def test_after_a_reboot_without_a_record_the_fate_is_unknown(
    scheduler: LocalScheduler, tmp_path: Path
) -> None:
    spec = a_launch(tmp_path, "/bin/true")
    latch = Path(spec.control_dir, "latch")
    latch.mkdir()
    boot = "11111111-2222-3333-4444-555555555555"
    own = look(os.getpid())
    assert own is not None
    words = f"{own.pid} {own.start_ticks}"
    start = f"start {spec.token} {words} {boot} 1700000000 host .\n"
    Path(latch, "start").write_text(start)
    ticket = Ticket(
        token=spec.token,
        work_dir=spec.work_dir,
        control_dir=spec.control_dir,
        reference=f"{words.replace(' ', ':')}:{boot}",
    )
    assert await scheduler.observe([ticket]) == {ticket: Gone()}
    # the control: the same words with this boot's name are a running process
    Path(latch, "start").write_text(start.replace(boot, boot_id()))
    assert await scheduler.observe([ticket]) == {ticket: Running()}


async def test_the_start_record_names_the_wrapper(
    scheduler: LocalScheduler, waiting: LaunchSpec
) -> None:
    ticket = await scheduler.submit(waiting)
    await filled(Path(waiting.work_dir, "pid"))
    start = record.read_start(waiting.control_dir, waiting.token)
    assert start is not None
    assert start.wrapper == ProcessRef.decode(ticket.reference)
    assert start.host == os.uname().nodename
    assert alive(start.wrapper)
    await scheduler.cancel(ticket, force=True)
    await over(scheduler, ticket)
    assert not alive(start.wrapper)


async def test_a_signal_never_reaches_a_process_that_got_the_pid_later(tmp_path: Path) -> None:
    with subprocess.Popen(["/bin/sleep", "600"], cwd=tmp_path) as process:
        real = look(process.pid)
        assert real is not None
        earlier = Process(real.pid, real.parent, real.session, False, real.start_ticks - 1, False)
        for hold in (os.pidfd_open, lambda _: None):
            send(earlier, signal.SIGKILL, hold)
        assert process.poll() is None
        send(real, signal.SIGKILL, lambda _: None)
        assert process.wait() == -signal.SIGKILL


async def test_the_wrapper_finds_its_children_on_a_kernel_without_a_list_of_them(
    spawner: LocalSpawner, tmp_path: Path
) -> None:
    spec = a_launch(
        tmp_path,
        *SHELL,
        "setsid sh -c 'echo $$ >pid; read -r x <gate' & until test -s pid; do :; done",
    )
    a_gate(spec)
    text = WRAPPER.read_text()
    variant = tmp_path / "wrapper.sh"
    variant.write_text(text.replace("/children", "/absent"))
    assert variant.read_text() != text
    words = ("/bin/sh", str(variant), spec.control_dir, spec.token, "-", "--", *spec.argv)
    ref = await spawner.spawn(SpawnRequest(argv=words, env=spec.env, work_dir=spec.work_dir))
    await until(lambda: not alive(ref))
    assert record.read_exit(spec.control_dir, spec.token) is not None
    assert not runs(int(Path(spec.work_dir, "pid").read_text()))
