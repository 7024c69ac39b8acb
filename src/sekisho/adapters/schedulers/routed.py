"""Every command to the scheduler of its venue, and every ticket back to the one that made it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection

import anyio

from sekisho.domain.resources import Venue
from sekisho.site.scheduler import LaunchSpec, Observation, Scheduler, Ticket


class RoutedScheduler:
    """``scheduler_of`` returns the scheduler of a venue, or raises what keeps it from being used.

    It is asked every time: the site may have changed its word about a venue.
    """

    def __init__(self, scheduler_of: Callable[[Venue], Scheduler]) -> None:
        self._of = scheduler_of

    async def submit(self, spec: LaunchSpec) -> Ticket:
        return await self._of(spec.venue).submit(spec)

    async def observe(self, tickets: Collection[Ticket]) -> dict[Ticket, Observation]:
        seen: dict[Ticket, Observation] = {}
        for venue, theirs in _by_venue(tickets).items():
            seen |= await self._of(venue).observe(theirs)
        return seen

    async def cancel(self, ticket: Ticket, *, force: bool) -> None:
        await self._of(ticket.venue).cancel(ticket, force=force)

    async def find(self, spec: LaunchSpec) -> Ticket | None:
        return await self._of(spec.venue).find(spec)

    async def changed(self, tickets: Collection[Ticket], timeout_s: float) -> None:
        grouped = _by_venue(tickets)
        if len(grouped) == 1:
            ((venue, theirs),) = grouped.items()
            await self._of(venue).changed(theirs, timeout_s)
            return
        with anyio.move_on_after(timeout_s):
            async with anyio.create_task_group() as group:
                for venue, theirs in grouped.items():
                    group.start_soon(self._first, venue, theirs, timeout_s, group.cancel_scope)
                if not grouped:
                    await anyio.sleep(timeout_s)

    async def _first(
        self, venue: Venue, theirs: list[Ticket], timeout_s: float, done: anyio.CancelScope
    ) -> None:
        await self._of(venue).changed(theirs, timeout_s)
        done.cancel()


def _by_venue(tickets: Collection[Ticket]) -> dict[Venue, list[Ticket]]:
    grouped: defaultdict[Venue, list[Ticket]] = defaultdict(list)
    for ticket in tickets:
        grouped[ticket.venue].append(ticket)
    return grouped
