"""Every call of the old MInt paths: its side, and what it does. The forms are in `http.mint`.

Old forms, today's rules: who calls is who the credential says, bodies are spooled and bounded,
nobody learns of a job that is not theirs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from typing import IO, Any, Final

from starlette.requests import Request

from sekisho.broker.desk import Desk
from sekisho.broker.mint import Files
from sekisho.broker.mint_agent import AGENT_VERSION, OldAgent
from sekisho.domain.access import Principal
from sekisho.domain.errors import StorageFull, TooLarge, UsageError
from sekisho.http.body import decoded, pieces, whole
from sekisho.http.endpoint import Context
from sekisho.wire.mint import BASE_PATH, Named, Reply, SentResults
from sekisho.wire.mint_body import Lifted, Lifter
from sekisho.wire.v1 import Poll

_SMALL_BYTES: Final = 64 << 10
#: So much of a body is gathered before it is worked on, off the event loop.
_GATHER_BYTES: Final = 1 << 20


class Side(StrEnum):
    """Who makes a call."""

    WORKFLOW = "workflow"
    AGENT = "agent"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class MintCall:
    """One request, after the gate."""

    request: Request
    caller: Principal

    @property
    def user(self) -> str:
        return self.caller.name

    def query(self, name: str) -> str:
        return self.request.query_params.get(name, "")


Answer = Reply | Files | dict[str, Any]


@dataclass(frozen=True, slots=True)
class MintRow:
    """One old path, as ``"METHOD name"``, and who may call it."""

    route: str
    side: Side
    run: Callable[[MintCall], Awaitable[Answer]]

    @property
    def method(self) -> str:
        return self.route.split(" ")[0]

    @property
    def name(self) -> str:
        return self.route.split(" ")[1]

    @property
    def path(self) -> str:
        return f"{BASE_PATH}/{self.name}"


@dataclass(slots=True)
class MintCalls:
    """What the old paths do."""

    desk: Desk
    context: Context
    reload: Callable[[], None]

    def rows(self) -> list[MintRow]:
        """Return every old path."""
        w, a = Side.WORKFLOW, Side.AGENT
        return [
            MintRow("POST add-calcinfo", w, self.add),
            MintRow("POST allow-wait-calc", w, self.allow),
            MintRow("POST cancel-wait-calc", w, self.cancel),
            MintRow("GET calc-status", w, self.status),
            MintRow("GET calc-progress", w, self.progress),
            MintRow("GET get-calc-result", w, self.result),
            MintRow("GET get-calcinfo", w, self.listing),
            MintRow("GET calc-request", a, self.request),
            MintRow("GET calc-params", a, self.params),
            MintRow("POST calc-params-complete", a, self.complete),
            MintRow("POST calc-start", a, self.start),
            MintRow("POST calc-end", a, self.end),
            MintRow("POST send-results", a, self.results),
            MintRow("POST end-send", a, self.finish),
            MintRow("POST reload-ini", Side.BOTH, self.reread),
        ]

    # --- the workflow's side -----------------------------------------------------------------

    async def add(self, call: MintCall) -> Answer:
        with self.desk.spool() as spool:
            body = await self._lifted(call, spool)
            reply: Reply = await self.context.threads.run(
                self.desk.mint_orders.add, call.user, body
            )
        return self._counted(reply)

    async def allow(self, call: MintCall) -> Answer:
        return await self._said(call, self.desk.mint_orders.allow)

    async def cancel(self, call: MintCall) -> Answer:
        return await self._said(call, self.desk.mint_orders.cancel)

    async def status(self, call: MintCall) -> Answer:
        return await self._asked(call, self.desk.mint_orders.status)

    async def progress(self, call: MintCall) -> Answer:
        return await self._asked(call, self.desk.mint_orders.progress)

    async def result(self, call: MintCall) -> Answer:
        return await self._asked(call, self.desk.mint_orders.result)

    async def listing(self, call: MintCall) -> Answer:
        return await self.context.threads.run(self.desk.mint_orders.listing, call.user)

    # --- the agent's side --------------------------------------------------------------------

    async def request(self, call: MintCall) -> Answer:
        site = call.query("site_id")
        if not site:
            return Reply("no_site", 400, 400)
        agent = await self._agent(call, site)
        if agent is None or not agent.takes:
            return Reply("unknown_site", 200, "400", {"site": site[:80]})
        poll = Poll(instance=agent.instance, free=1, agent_version=AGENT_VERSION)
        await self.context.threads.run(self.desk.offers.seen, agent.site, poll)
        return await self.context.threads.run(self.desk.mint_work.request, agent)

    async def params(self, call: MintCall) -> Answer:
        agent = await self._agent(call, call.query("site_id"))
        if agent is None:
            return Reply("unknown_id", 400, 400)
        return await self.context.threads.run(
            self.desk.mint_work.params, agent, call.query("accept_id")
        )

    async def complete(self, call: MintCall) -> Answer:
        return await self._told(call, self.desk.mint_work.complete)

    async def start(self, call: MintCall) -> Answer:
        return await self._told(call, self.desk.mint_work.start)

    async def end(self, call: MintCall) -> Answer:
        return await self._told(call, self.desk.mint_work.end)

    async def finish(self, call: MintCall) -> Answer:
        return await self._told(call, self.desk.mint_work.finish)

    async def results(self, call: MintCall) -> Answer:
        with self.desk.spool() as spool:
            body = await self._lifted(call, spool)
            try:
                message = body.decoded(SentResults)
            except UsageError:
                return Reply("not_json", 400, 400)
            agent = await self._agent(call, message.site_id)
            if agent is None:
                return Reply("unknown_id", 400, 400)
            return await self.context.threads.run(self.desk.mint_work.results, agent, body, message)

    async def reread(self, _: MintCall) -> Answer:
        """Read the settings again, in the event loop: see `http.admin_calls`."""
        self.reload()
        return Reply("reread")

    # --- what they share ---------------------------------------------------------------------

    async def _said(self, call: MintCall, run: Callable[[str, Named], Reply]) -> Answer:
        message = await _named(call.request)
        if isinstance(message, Reply):
            return message
        return self._counted(await self.context.threads.run(run, call.user, message))

    async def _asked(
        self, call: MintCall, run: Callable[[str, str], Reply] | Callable[[str, str], Reply | Files]
    ) -> Answer:
        found = await self.context.threads.run(run, call.user, call.query("accept_id"))
        return self._counted(found)

    async def _told(self, call: MintCall, run: Callable[[OldAgent, Named], Reply]) -> Answer:
        message = await _named(call.request)
        if isinstance(message, Reply):
            return message
        agent = await self._agent(call, message.site_id)
        if agent is None:
            return Reply("unknown_id", 400, 400)
        return await self.context.threads.run(run, agent, message)

    async def _agent(self, call: MintCall, site: str) -> OldAgent | None:
        address = call.request.client.host if call.request.client else ""
        site = self.desk.policy.value.mint.ours(site)
        agent = await self.context.threads.run(
            self.desk.mint_work.agent, call.caller, site, address
        )
        if agent is not None:
            self._count(site, Side.AGENT)
        return agent

    def _counted(self, answer: Reply | Files) -> Answer:
        if answer.site:
            self._count(answer.site, Side.WORKFLOW)
        return answer

    def _count(self, site: str, side: Side) -> None:
        """Count one call about a site that is configured."""
        ports = self.desk.ports
        self.desk.meter.add("mint_site_calls", site=site, side=side.value)
        ports.store.mint.used(site, side.value, calls=1, at=ports.clock.now())

    async def _lifted(self, call: MintCall, spool: IO[bytes]) -> Lifted:
        """Read a body with files into ``spool``, bounded by the policy and by the disk's room."""
        lifter, gathered, read = Lifter(spool), bytearray(), 0
        limit = self.desk.policy.value.mint.max_body_bytes
        async with aclosing(pieces(call.request)) as arriving:
            async for piece in arriving:
                read += len(piece)
                if read > limit:
                    raise TooLarge(limit=limit)
                gathered += piece
                if len(gathered) >= _GATHER_BYTES:
                    await self.context.threads.run(self._feed, lifter, bytes(gathered))
                    gathered.clear()
        await self.context.threads.run(self._feed, lifter, bytes(gathered))
        return lifter.end()

    def _feed(self, lifter: Lifter, data: bytes) -> None:
        floor = self.desk.policy.value.free_floor_bytes
        if self.desk.ports.blobs.free_bytes() - 2 * len(data) < floor:
            raise StorageFull
        lifter.feed(data)


async def _named(request: Request) -> Named | Reply:
    try:
        message = decoded(await whole(request, _SMALL_BYTES), Named)
    except (UsageError, TooLarge):
        return Reply("not_json", 400, 400)
    return message if message.accept_id else Reply("no_id", 400, 400)
