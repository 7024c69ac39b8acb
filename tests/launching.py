"""Builders for tests that start real commands: a spec, waiting with a deadline, small programs."""
# ruff: noqa: ASYNC110, ASYNC240 - other processes make no events; a small local file may block

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from sekisho.adapters.hosts.process_tree import look, open_process
from sekisho.adapters.hosts.spawn_local import LocalSpawner
from sekisho.adapters.schedulers.local import LocalScheduler
from sekisho.domain.launch import LaunchLimits
from sekisho.site.scheduler import (
    Exited,
    LaunchSpec,
    Observation,
    Pending,
    Running,
    Scheduler,
    Ticket,
)

PYTHON = (sys.executable, "-I", "-S", "-c")
SHELL = ("/bin/sh", "-c")


def calls_of_wrapper(control: str) -> dict[str, tuple[str, ...]]:
    """Return what wrapper.sh, or what it starts, does to each file of its directory ``control``."""
    return {
        control: ("fsync",),
        f"{control}/latch": ("mkdir", "fsync"),
        f"{control}/latch/start": ("openat", "write", "fsync"),
        f"{control}/exit.new": ("openat", "write", "fsync", "renameat,renameat2"),
        f"{control}/exit": ("fsync",),
        f"{control}/stdout": ("openat", "write"),
        f"{control}/stderr": ("openat",),
    }


def a_launch(
    base: Path,
    *argv: str,
    env: Mapping[str, str] | None = None,
    limits: LaunchLimits | None = None,
) -> LaunchSpec:
    """Return a spec with fresh directories below ``base``."""
    token = secrets.token_urlsafe(12)
    work, control = base / f"{token}.work", base / f"{token}.control"
    work.mkdir(mode=0o700)
    control.mkdir(mode=0o700)
    return LaunchSpec(
        token=token,
        argv=argv,
        env={"CALC_DIR": str(work)} if env is None else env,
        work_dir=str(work),
        control_dir=str(control),
        limits=limits or LaunchLimits(),
    )


async def over(scheduler: Scheduler, ticket: Ticket, within_s: float = 120) -> Observation:
    """Return the first look at ``ticket`` that says that nothing of it runs."""
    with anyio.fail_after(within_s):
        while True:
            seen = (await scheduler.observe([ticket]))[ticket]
            if not isinstance(seen, Pending | Running):
                return seen
            await scheduler.changed([ticket], within_s)


async def output(scheduler: Scheduler, spec: LaunchSpec) -> bytes:
    """Return what the program of ``spec`` printed, once it has ended well."""
    seen = await over(scheduler, await scheduler.submit(spec))
    assert isinstance(seen, Exited)
    assert seen.exit.code == 0
    return Path(spec.control_dir, "stdout").read_bytes()


async def until(claim: Callable[[], object], within_s: float = 120) -> None:
    """Return when ``claim`` holds."""
    with anyio.fail_after(within_s):
        while not claim():
            await anyio.sleep(0.002)


async def filled(path: Path) -> str:
    """Return the text of ``path`` when it has a whole line."""
    await until(lambda: path.exists() and path.read_text().endswith("\n"))
    return path.read_text()


def runs(pid: int) -> bool:
    process = look(pid)
    return process is not None and not process.dead


class SweepingScheduler(LocalScheduler):
    """Remembers what it started, so that a test that fails leaves nothing behind."""

    started: list[Ticket]
    spawner: LocalSpawner

    async def submit(self, spec: LaunchSpec) -> Ticket:
        ticket = await super().submit(spec)
        self.started.append(ticket)
        return ticket


@asynccontextmanager
async def a_scheduler(
    *, shell: tuple[str, ...] = ("/bin/sh",), hold: Callable[[int], int | None] = open_process
) -> AsyncIterator[SweepingScheduler]:
    """Return a scheduler of this machine; at the end everything that it started is ended."""
    async with LocalSpawner() as spawner:
        scheduler = SweepingScheduler(spawner, shell=shell, hold=hold)
        scheduler.started, scheduler.spawner = [], spawner
        yield scheduler
        for ticket, seen in (await scheduler.observe(scheduler.started)).items():
            if isinstance(seen, Pending | Running):
                await scheduler.cancel(ticket, force=True)


def a_gate(spec: LaunchSpec) -> Path:
    """Return a pipe in the work directory: a command that reads it waits for `release`."""
    gate = Path(spec.work_dir, "gate")
    os.mkfifo(gate)
    return gate


def release(gate: Path) -> None:
    gate.write_text("go\n")
