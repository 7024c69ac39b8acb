"""Commands as processes of another host, left there by themselves: no connection keeps them alive.

P3: the run latch decides, as everywhere: what was perhaps started is started again in vain. What is
    given up is revoked by taking its latch, so that a start that is late finds it.
Rule 1: processes are looked at before records: a record read after they were gone is the last.
Rule 2: what a host of another name, or the same after a restart, has started is judged by that: on
    another host behind the same alias it cannot be seen, and runs until a record says otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio

from sekisho.adapters.schedulers.board import Board
from sekisho.adapters.schedulers.control import Control
from sekisho.adapters.schedulers.record import exit_in, start_in
from sekisho.adapters.schedulers.traces import Traces
from sekisho.domain.errors import Unavailable
from sekisho.site.host import Answer, Host
from sekisho.site.scheduler import (
    Exited,
    Gone,
    LaunchSpec,
    Observation,
    Pending,
    Running,
    Ticket,
)

_SCRIPT: Final = Path(__file__).with_name("detached.sh").read_text("utf-8")
_CALL_S: Final = 60.0
#: How long a wrapper may take from its start to its latch before it is looked for in earnest.
SETTLE_S: Final = 3.0
POLL_S: Final = 0.2
POLL_MAX_S: Final = 10.0
_NO_ID: Final = "-"
#: How a search that was not killed ends: found, none, or none in what it may read.
_SEARCHED: Final = (["grep 0"], ["grep 1"], ["grep 2"])


@dataclass(frozen=True, slots=True)
class _Look:
    """Which work directories had processes, on which host since which boot; then the records."""

    host: str
    boot: str
    alive: frozenset[str]
    traces: Mapping[str, Traces]


class DetachedScheduler:
    """Scheduler on ``host``, for one event loop: starts wrappers there, and finds them again."""

    def __init__(self, host: Host, *, settle_s: float = SETTLE_S) -> None:
        self._host = host
        self._settle_s = settle_s
        self._control = Control(host, _CALL_S)
        self._turn = anyio.Lock()
        self._board = Board(self._look, poll_s=POLL_S, poll_max_s=POLL_MAX_S)

    async def submit(self, spec: LaunchSpec) -> Ticket:
        async with self._turn:  # two of one job must not write the same files
            if await self._control.place(spec):
                await self._said("start", spec.control_dir, spec.work_dir)
        self._board.hurry()
        return spec.ticket(_NO_ID)

    async def observe(self, tickets: Collection[Ticket]) -> dict[Ticket, Observation]:
        look = await self._board.sight(tickets)
        seen = {ticket: _seen(ticket, look) for ticket in tickets}
        missing = [ticket for ticket, now in seen.items() if now is None]
        if missing:
            seen |= await self._missing(missing)
        told = {ticket: now or Pending() for ticket, now in seen.items()}
        self._board.settled(told)
        return told

    async def cancel(self, ticket: Ticket, *, force: bool) -> None:
        self._board.hurry()
        await self._said("stop", "KILL" if force else "TERM", ticket.control_dir, ticket.work_dir)

    async def find(self, spec: LaunchSpec) -> Ticket | None:
        look = await self._look([spec.ticket(_NO_ID)])
        start = look.traces[spec.control_dir].start
        ours = not start or start_in(start, spec.token) is not None
        return spec.ticket(_NO_ID) if ours and spec.work_dir in look.alive else None

    async def changed(self, tickets: Collection[Ticket], timeout_s: float) -> None:
        def over(look: _Look) -> bool:
            seen = _facts(tickets, look)
            return any(isinstance(now, Exited | Gone) or now is None for now in seen)

        await self._board.changed(tickets, timeout_s, lambda look: _facts(tickets, look), over)

    async def _look(self, tickets: Collection[Ticket]) -> _Look:
        works = sorted({ticket.work_dir for ticket in tickets})
        if not works:
            return _Look("", "", frozenset(), {})
        lines = (await self._said("look", *works)).stdout.decode("utf-8", "replace").split("\n")
        head, searched, end = lines[0].split(), lines[-3:-2], lines[-2:]
        if len(head) != 2 or end != ["end", ""] or searched not in _SEARCHED:
            raise Unavailable("host.unreachable", why="processes")
        host, boot = head
        alive = frozenset(line.removeprefix("CALC_DIR=") for line in lines[1:-3])
        traces = await self._control.read(sorted({ticket.control_dir for ticket in tickets}))
        return _Look(host, boot, alive, traces)

    async def _missing(self, tickets: list[Ticket]) -> dict[Ticket, Observation | None]:
        """Look again, after a while, for what has left nothing to believe."""
        await anyio.sleep(self._settle_s)
        again = await self._look(tickets)
        return {
            ticket: _seen(ticket, again)
            or await self._control.given_up(ticket, again.traces[ticket.control_dir], None)
            for ticket in tickets
        }

    async def _said(self, *words: str) -> Answer:
        argv = ("/bin/sh", "-c", _SCRIPT, "sekisho", *words)
        answer = await self._host.run(argv, timeout_s=_CALL_S)
        if answer.code != 0:
            raise Unavailable("host.unreachable", why=words[0])
        return answer


def _seen(ticket: Ticket, look: _Look) -> Observation | None:
    """Say what ``look`` proves; None: nothing runs that can be seen, and there is no record."""
    traces = look.traces[ticket.control_dir]
    if ticket.work_dir in look.alive:
        return Running() if traces.latch == "taken" else Pending()
    ended = exit_in(traces.exit, ticket.token) if traces.latch == "taken" else None
    if ended is not None:
        return Exited(ended)
    start = start_in(traces.start, ticket.token)
    if start is not None and start.host != look.host:
        return Running()
    return None


def _facts(tickets: Collection[Ticket], look: _Look) -> list[Observation | None]:
    return [_seen(t, look) if t.control_dir in look.traces else Pending() for t in tickets]
