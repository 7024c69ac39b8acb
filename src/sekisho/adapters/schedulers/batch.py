"""A batch system as a scheduler: one class, on any host, in any dialect.

P3: what may have been submitted is looked for by its name before anything else happens, and what is
    given up is revoked by taking its latch, so that a job that turns up later cannot start.
Rule 1: an end is told when the batch system has the job no more *and* its exit record is there.
Rule 2: a job that is missing must be missing twice, some time apart, before that means anything.
Rule 3: the batch system's own limits and outages are waited for; the job stays at the site.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

import anyio

from sekisho.adapters.schedulers.board import Board
from sekisho.adapters.schedulers.control import Control
from sekisho.adapters.schedulers.dialect import (
    Dialect,
    Row,
    State,
    Submission,
    Words,
    complaint,
    job_name,
    text_of,
)
from sekisho.adapters.schedulers.traces import ArrayTraces, Traces
from sekisho.domain.errors import SekishoError, Unavailable
from sekisho.domain.resources import BatchSystem
from sekisho.site.host import Answer, Host
from sekisho.site.scheduler import (
    LaunchSpec,
    Observation,
    Pending,
    Running,
    Ticket,
)

#: After "no room" nobody else asks for so long; it doubles up to the longest.
FULL_SECONDS: Final = 2.0
MAX_FULL_SECONDS: Final = 60.0
#: A complaint of no known kind is believed to be one for good when it comes again.
MAX_UNKNOWN_COMPLAINTS: Final = 3
CANCEL_SECONDS: Final = 5.0
#: For a command without a limit of its own, as in a trial.
DEFAULT_WALL_SECONDS: Final = 3600
#: The reference of a ticket whose job we do not know by number.
UNKNOWN_ID: Final = "-"


@dataclass(frozen=True, slots=True)
class _Look:
    """What one look at the batch system and at the control directories saw."""

    rows: Mapping[str, tuple[Row, ...]]
    traces: Mapping[str, Traces | ArrayTraces]

    def alive(self, ticket: Ticket) -> list[Row]:
        return [row for row in self.of(ticket) if row.state is not State.ENDED]

    def of(self, ticket: Ticket) -> tuple[Row, ...]:
        return self.rows.get(job_name(ticket.token), ())

    def why(self, ticket: Ticket) -> str | None:
        return next((row.why for row in self.of(ticket) if row.why is not None), None)


class BatchScheduler:
    """Scheduler by a batch system's own commands on ``host``."""

    def __init__(self, host: Host, dialect: Dialect, system: BatchSystem) -> None:
        self._host = host
        self._dialect = dialect
        self._system = system
        usual = zip((system.submit, system.status, system.cancel), dialect.commands, strict=True)
        self._submit, self._status, self._cancel = (said or own for said, own in usual)
        self._control = Control(host, system.timeout_s)
        self._board = Board(self._look, poll_s=system.poll_s, poll_max_s=system.poll_max_s)
        self._turn = anyio.Lock()  #: one submission at a time: a batch system has one front door
        self._full_until, self._full_s = 0.0, FULL_SECONDS
        self._complaints: Counter[str] = Counter()
        self._cancelled: dict[Ticket, float] = {}
        self._user = ""

    # ------------------------------------------------------------------ submitting

    async def submit(self, spec: LaunchSpec) -> Ticket:
        async with self._turn:
            if anyio.current_time() < self._full_until:
                raise Unavailable("scheduler.full")
            numbering = self._dialect.element, self._dialect.first
            if not await self._control.place(spec, *numbering):
                return spec.ticket(UNKNOWN_ID)  # a wrapper is there: its traces tell the rest
            identity = await self._submitted(spec)
        self._complaints.pop(spec.token, None)
        self._full_s = FULL_SECONDS
        self._board.hurry()
        return spec.ticket(identity)

    async def _submitted(self, spec: LaunchSpec) -> str:
        answer = await self._ask(self._dialect.submit(self._submit, self._submission(spec)), spec)
        identity = self._dialect.submitted(answer.stdout.decode("utf-8", "replace"))
        if answer.code == 0 and identity:
            return identity
        fault = self._complaint(spec, answer)
        if fault.code == "scheduler.full":
            fault = await self._too_many(spec, text_of(answer)) or self._closed(fault)
        if not fault.retryable and (found := await self._settled_refusal(spec)) is not None:
            return found
        raise fault

    def submission_of(self, spec: LaunchSpec) -> Words:
        """Return the command line that submits ``spec``, to be shown."""
        return self._dialect.submit(self._submit, self._submission(spec))

    def _submission(self, spec: LaunchSpec) -> Submission:
        return Submission(
            name=job_name(spec.token),
            directory=spec.control_dir,
            resources=spec.resources,
            wall_time=spec.resources.wall_time or DEFAULT_WALL_SECONDS,
            elements=spec.resources.elements or 1,
        )

    def _complaint(self, spec: LaunchSpec, answer: Answer) -> SekishoError:
        """Say what a bad answer to a submission means. Whether there is a job now is unknown."""
        fault = complaint(self._dialect, answer)
        if fault is not None:
            return fault
        self._complaints[spec.token] += 1
        if answer.code == 0 or self._complaints[spec.token] < MAX_UNKNOWN_COMPLAINTS:
            return Unavailable("scheduler.unsure", said=text_of(answer).strip()[:200])
        return SekishoError("scheduler.refused", said=text_of(answer).strip()[:200])

    def _closed(self, fault: SekishoError) -> SekishoError:
        """Let nobody ask again for a while."""
        self._full_until = anyio.current_time() + self._full_s
        self._full_s = min(2 * self._full_s, MAX_FULL_SECONDS)
        return fault

    async def _too_many(self, spec: LaunchSpec, said: str) -> SekishoError | None:
        """Tell an array for which there will never be room from one that waits for room.

        A batch system says the same of both, so it is asked for its limits; if it does not tell
        them, the array waits.
        """
        limits, count = self._dialect.limits, spec.resources.elements or 1
        if limits is None or count == 1:
            return None
        answer = await self._ask(limits.ask(self._status, await self._account()))
        told = answer.stdout.decode("utf-8", "replace") if answer.code == 0 else ""
        most = limits.most(said, told)
        if most is None or count <= most:
            return None
        return SekishoError("scheduler.too_many", count=count, limit=most)

    async def _settled_refusal(self, spec: LaunchSpec) -> str | None:
        """Make sure that what was refused can never start, or return the job that is there."""
        found = await self.find(spec)
        if found is not None:
            return found.reference
        revoked = await self._control.revoke(spec.control_dir, spec.resources.elements)
        return None if revoked else UNKNOWN_ID

    # ------------------------------------------------------------------ looking

    async def observe(self, tickets: Collection[Ticket]) -> dict[Ticket, Observation]:
        look = await self._board.sight(tickets)
        seen = {ticket: _seen(ticket, look) for ticket in tickets}
        missing = [ticket for ticket, now in seen.items() if now is None]
        if missing:
            seen |= await self._missing(missing)
        told = {ticket: now or Running() for ticket, now in seen.items()}
        for ticket in self._board.settled(told):
            self._cancelled.pop(ticket, None)
        return told

    async def find(self, spec: LaunchSpec) -> Ticket | None:
        name = job_name(spec.token)
        rows = await self._rows(self._dialect.search(self._status, (name,), await self._account()))
        alive = [row for row in rows if row.name == name and row.state is not State.ENDED]
        return spec.ticket(alive[0].id) if alive else None

    async def changed(self, tickets: Collection[Ticket], timeout_s: float) -> None:
        def over(look: _Look) -> bool:
            return any(not isinstance(_seen(t, look), Pending | Running) for t in tickets)

        await self._board.changed(tickets, timeout_s, lambda look: _facts(tickets, look), over)

    async def _look(self, tickets: Collection[Ticket]) -> _Look:
        """Ask the batch system first: a record read after a job was seen gone is its last."""
        names = sorted({job_name(ticket.token) for ticket in tickets})
        ids = sorted({ticket.reference for ticket in tickets} - {UNKNOWN_ID})
        if not names:
            return _Look({}, {})
        user = await self._account()
        rows = await self._rows(self._dialect.status(self._status, ids, names, user))
        return _Look(_by_name(rows), await self._control.look(tickets))

    async def _missing(self, tickets: list[Ticket]) -> dict[Ticket, Observation | None]:
        """Look again, by name, for what seems to be over without an end that can be believed."""
        await anyio.sleep(self._system.settle_s)
        names = [job_name(ticket.token) for ticket in tickets]
        rows = await self._rows(self._dialect.search(self._status, names, await self._account()))
        traces = await self._control.look(tickets)
        first = await self._board.sight(tickets)  # a reason is often told only once
        again = _Look(_by_name(rows), traces)
        seen: dict[Ticket, Observation | None] = {}
        for ticket in tickets:
            now = _seen(ticket, again)
            why = again.why(ticket) or first.why(ticket)
            left = again.traces[ticket.control_dir]
            seen[ticket] = now or await self._control.given_up(ticket, left, why)
        return seen

    # ------------------------------------------------------------------ stopping

    async def cancel(self, ticket: Ticket, *, force: bool) -> None:
        """Have the batch system end it. TERM first, KILL after a while: that is its own habit.

        Only what bears its name is ended: its number may be somebody else's by now.
        """
        now = anyio.current_time()
        if now - self._cancelled.get(ticket, -CANCEL_SECONDS) < CANCEL_SECONDS and not force:
            return
        self._board.hurry()
        look = await self._board.sight([ticket])
        ids = sorted({row.id for row in look.alive(ticket)})
        if ids:
            self._cancelled[ticket] = now
            answer = await self._ask((*self._cancel, *ids))
            fault = complaint(self._dialect, answer) if answer.code != 0 else None
            if fault is not None:
                del self._cancelled[ticket]
                raise fault

    # ------------------------------------------------------------------ asking

    async def _rows(self, argv: Words) -> list[Row]:
        answer = await self._ask(argv)
        try:
            return self._dialect.rows(answer)
        except Unavailable as strange:
            raise complaint(self._dialect, answer) or strange from None

    async def _ask(self, argv: Words, spec: LaunchSpec | None = None) -> Answer:
        return await self._host.run(
            argv,
            cwd="/" if spec is None else spec.control_dir,
            env=self._system.environment,
            timeout_s=self._system.timeout_s,
        )

    async def _account(self) -> str:
        """Return the name of the account there, whose jobs alone are ours."""
        if not self._user:
            answer = await self._host.run(("id", "-un"), timeout_s=self._system.timeout_s)
            name, whole, _ = answer.stdout.decode("utf-8", "replace").partition("\n")
            if answer.code != 0 or not name or not whole:
                raise Unavailable("host.unreachable", why="id")
            self._user = name
        return self._user


def _seen(ticket: Ticket, look: _Look) -> Observation | None:
    """Say what ``look`` proves; None: the job is not there, and left nothing to believe."""
    traces = look.traces[ticket.control_dir]
    alive = look.alive(ticket)
    if not traces.started:
        return Pending(held=any(row.held for row in alive)) if alive else None
    ended = traces.end(ticket.token)
    if ended is not None and all(row.state is State.WAITING for row in alive):
        # a requeued job never runs
        return replace(ended, why=look.why(ticket) if ended.exit.code else None)
    return Running() if alive else None


def _facts(tickets: Collection[Ticket], look: _Look) -> list[tuple[object, ...]]:
    return [(look.of(ticket), look.traces.get(ticket.control_dir)) for ticket in tickets]


def _by_name(rows: list[Row]) -> dict[str, tuple[Row, ...]]:
    named: dict[str, tuple[Row, ...]] = {}
    for row in rows:
        named[row.name] = (*named.get(row.name, ()), row)
    return named
