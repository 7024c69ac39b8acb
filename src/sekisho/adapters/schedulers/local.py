"""The scheduler of a site without one: commands run as processes of this machine.

Every look starts from what is there: wrapper first, then its records. A wrapper writes its exit
record before it dies, so that a record read after the death was seen is all there will ever be.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Final

import anyio
import anyio.to_thread

from sekisho.adapters.hosts import process_tree
from sekisho.adapters.hosts.process_tree import WRAPPER, ProcessRef, Trace
from sekisho.adapters.hosts.spawn_local import LocalSpawner, SpawnRequest
from sekisho.adapters.schedulers import record
from sekisho.domain.errors import Corrupt
from sekisho.site.scheduler import (
    Exited,
    Gone,
    LaunchSpec,
    NotStarted,
    Observation,
    Pending,
    Running,
    Ticket,
)

_KILL_WITHIN_S: Final = 5.0
_LATCH_LOOK_S: Final = 0.05
_END_LOOK_S: Final = 0.1
_MAX_WATCHED: Final = 64


class LocalScheduler:
    """Start wrappers through a spawner; find, watch and stop them by the process table."""

    def __init__(
        self,
        spawner: LocalSpawner,
        *,
        shell: tuple[str, ...] = ("/bin/sh",),
        hold: Callable[[int], int | None] = process_tree.open_process,
    ) -> None:
        self._spawner = spawner
        self._shell = shell
        self._hold = hold

    async def submit(self, spec: LaunchSpec) -> Ticket:
        wrapper = (
            os.fspath(WRAPPER),
            spec.control_dir,
            spec.token,
            str(spec.limits.max_processes or "-"),
            str(process_tree.booted_at()),
            "--",
        )
        process = await self._spawner.spawn(
            SpawnRequest(
                argv=(*self._shell, *wrapper, *spec.argv),
                env=spec.env,
                work_dir=spec.work_dir,
                max_file_bytes=spec.limits.max_file_bytes,
                max_open_files=spec.limits.max_open_files,
            )
        )
        return spec.ticket(process.encode())

    async def observe(self, tickets: Collection[Ticket]) -> dict[Ticket, Observation]:
        return await anyio.to_thread.run_sync(_look_at, tuple(tickets))

    async def cancel(self, ticket: Ticket, *, force: bool) -> None:
        await anyio.to_thread.run_sync(_stop, ticket, force)

    async def find(self, spec: LaunchSpec) -> Ticket | None:
        found = await anyio.to_thread.run_sync(process_tree.find_wrapper, spec.token)
        return None if found is None else spec.ticket(found.process.encode())

    async def changed(self, tickets: Collection[Ticket], timeout_s: float) -> None:
        if not tickets:
            await anyio.sleep(timeout_s)
            return
        launched = [_launched(ticket) for ticket in tickets]
        alive = all(process_tree.alive(ref) for ref in launched)
        watched = launched if alive else await anyio.to_thread.run_sync(_watched, tuple(tickets))
        if watched is None:
            return
        with anyio.move_on_after(timeout_s):
            async with anyio.create_task_group() as group:
                for ref in watched:
                    group.start_soon(self._end_of, ref, group.cancel_scope)
                for ticket in tickets:
                    if _start(ticket) is None:
                        group.start_soon(_start_of, ticket, group.cancel_scope)

    async def _end_of(self, ref: ProcessRef, done: anyio.CancelScope) -> None:
        with suppress(ProcessLookupError):
            descriptor = self._hold(ref.pid)
            if descriptor is None:
                while process_tree.alive(ref):  # noqa: ASYNC110 the kernel tells us nothing
                    await anyio.sleep(_END_LOOK_S)
            else:
                try:
                    if process_tree.alive(ref):
                        await anyio.wait_readable(descriptor)
                finally:
                    os.close(descriptor)
        done.cancel()


async def _start_of(ticket: Ticket, done: anyio.CancelScope) -> None:
    """Between a submit and the latch lie milliseconds, and no event to wait for."""
    while _start(ticket) is None:  # noqa: ASYNC110 another process makes it
        await anyio.sleep(_LATCH_LOOK_S)
    done.cancel()


def _launched(ticket: Ticket) -> ProcessRef:
    try:
        return ProcessRef.decode(ticket.reference)
    except ValueError as fault:
        raise Corrupt(kind="ticket") from fault


def _start(ticket: Ticket) -> record.Start | None:
    return record.read_start(ticket.control_dir, ticket.token)


def _trace(ticket: Ticket) -> Trace:
    """Follow the wrapper that holds the latch; it need not be the one that this ticket started."""
    start = _start(ticket)
    return Trace(start.wrapper if start else _launched(ticket), ticket.work_dir)


def _stop(ticket: Ticket, force: bool) -> None:  # noqa: FBT001 called by position in a thread
    if _wrapped(ticket) == Pending():
        return  # a wrapper that is hit while it takes the latch could not say that nothing ran
    if force:
        process_tree.kill(_trace(ticket), _KILL_WITHIN_S)
    else:
        process_tree.terminate(_trace(ticket))


def _look_at(tickets: Collection[Ticket]) -> dict[Ticket, Observation]:
    seen = {ticket: _wrapped(ticket) for ticket in tickets}
    rows = process_tree.table() if None in seen.values() else {}
    return {ticket: now or _after_wrapper(ticket, rows) for ticket, now in seen.items()}


def _wrapped(ticket: Ticket) -> Observation | None:
    """Say how far a living wrapper is; None when none lives."""
    if process_tree.alive(_launched(ticket)):
        return Running() if _start(ticket) else Pending()
    start = _start(ticket)
    return Running() if start and process_tree.alive(start.wrapper) else None


def _after_wrapper(ticket: Ticket, rows: process_tree.Table) -> Observation:
    """Say what is left, with ``rows`` read after the wrapper was seen dead."""
    if _start(ticket) is None and process_tree.find_wrapper(ticket.token):
        return Pending()  # a second submit's ticket, while the first one is taking the latch
    if process_tree.members(_trace(ticket), rows):
        return Running()
    ended = record.read_exit(ticket.control_dir, ticket.token)
    if ended is not None:
        return Exited(ended)
    return NotStarted() if record.untouched(ticket.control_dir) else Gone()


def _watched(tickets: Collection[Ticket]) -> list[ProcessRef] | None:
    """Return the processes whose end is news; None when there is news already."""
    found: list[ProcessRef] = []
    for ticket in tickets:
        trace = _trace(ticket)
        if process_tree.alive(trace.wrapper):
            found.append(trace.wrapper)
            continue
        left = process_tree.members(trace, process_tree.table())
        if not left:
            return None
        boot = process_tree.boot_id()
        found += [ProcessRef(p.pid, p.start_ticks, boot) for p in left[:_MAX_WATCHED]]
    return found
