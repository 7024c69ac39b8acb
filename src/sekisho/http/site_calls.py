"""What the site's routes do: translate between messages and `broker.offer`."""

from __future__ import annotations

from dataclasses import dataclass

from sekisho import __version__
from sekisho.broker.desk import Desk
from sekisho.broker.jobs import site_topic
from sekisho.domain.limits import MAX_PART_BYTES
from sekisho.http.call import Call
from sekisho.http.longpoll import LongPoll
from sekisho.http.threads import Threads
from sekisho.wire.v1 import Done, Identity, Joined, PollAnswer


@dataclass(frozen=True, slots=True)
class SiteCalls:
    """The site's routes. The site is the caller's own; no parameter names it."""

    desk: Desk
    polls: LongPoll
    threads: Threads

    def join(self, call: Call) -> Joined:
        return self.desk.tokens.join(call.principal, call.message)

    async def poll(self, call: Call) -> PollAnswer | None:
        """Answer when there is an offer, a cancel, a change of drafts, or in what is disabled.

        Whatever is answered tells all that is disabled; 204 says that it is as told before.
        """
        site, message = call.user, call.message
        known = await self.threads.look(self.desk.offers.seen, site, message)
        disabled = sorted(known.disabled_commands)

        async def look() -> PollAnswer:
            if await call.gone():  # an offer would be lost on a caller that has hung up
                return PollAnswer(disabled_commands=disabled)
            return await self.threads.run(self.desk.offers.look, site, message)

        def news(answer: PollAnswer) -> bool:
            changed = answer.disabled_commands != disabled
            heard = answer.offers or answer.cancel or answer.coming or answer.gone
            return bool(heard or changed)

        self.desk.meter.add("polling", 1)
        try:
            answer = await self.polls.until(
                news, look, topics=[site_topic(site)], wait_s=message.wait_s
            )
        finally:
            self.desk.meter.add("polling", -1)
        silent = not news(answer) and not disabled
        return None if silent else answer

    def accept(self, call: Call) -> Done:
        self.desk.offers.accept(call.user, call.id, call.message)
        return Done()

    def report(self, call: Call) -> Done:
        self.desk.offers.report(call.user, call.id, call.message)
        return Done()

    def publish(self, call: Call) -> Done:
        self.desk.publications.publish(call.user, call.id, call.message)
        return Done()

    def verdict(self, call: Call) -> Done:
        self.desk.offers.verdict(call.user, call.id, call.message)
        return Done()

    def identity(self, call: Call) -> Identity:
        return Identity(
            role=call.principal.role.value,
            name=call.principal.name,
            at=self.desk.ports.clock.now(),
            broker_version=__version__,
            max_body_bytes=MAX_PART_BYTES,
        )

    async def idle(self, call: Call) -> Identity:
        """Answer after a silence: shows whether something on the way cuts idle connections."""

        async def look() -> None:
            return None

        await self.polls.until(lambda _: False, look, topics=[], wait_s=call.query.idle_s)
        return self.identity(call)
