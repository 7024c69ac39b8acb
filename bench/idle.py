"""What agents with nothing to do cost the broker, and how soon one of them hears of a job."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from bench.parts import MILLI
from bench.process import BenchFault, Memory, Server
from bench.report import Spread
from bench.world import NOTHING, Member, World
from sekisho.api import JobSpec, connect

_CONNECT_SECONDS: Final = 300.0
_OFFER_SECONDS: Final = 60.0
#: What is true only of the first moments (handshakes, first polls) has passed by then.
_SETTLE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Idle:
    """The broker with ``agents`` long polls open and nothing to do."""

    agents: int
    memory: Memory
    cores: float
    seconds: float


class Crowd:
    """Agents that were started, by the thousand, and the broker that they poll."""

    def __init__(self, here: World, broker: Server, members: Sequence[Member]) -> None:
        self._world = here
        self._broker = broker
        self._members = members
        self._polling = 0
        self._newest: tuple[Server, Sequence[Member]] | None = None

    def grow(self, number: int) -> None:
        """Let agents connect until ``number`` of them poll."""
        root, known = self._world.root, self._world.polling() - self._polling
        joining = self._members[self._polling : number]
        file = root / f"members-{number}.json"
        file.write_text(json.dumps([asdict(member) for member in joining]), "utf-8")
        where = (str(self._world.port), str(self._world.ca))
        server = self._world.start_module("bench.crowd", *where, str(file), pipes=True)
        self._newest = server, joining
        server.wait_until(lambda: self._world.polling() >= number + known, _CONNECT_SECONDS)
        self._polling = number

    def look(self, seconds: float) -> Idle:
        """Watch the broker for ``seconds``."""
        time.sleep(_SETTLE_SECONDS)
        before, begun = self._broker.cpu_seconds(), time.monotonic()
        time.sleep(seconds)
        passed = time.monotonic() - begun
        cores = (self._broker.cpu_seconds() - before) / passed
        return Idle(self._polling, self._broker.memory(), cores, passed)

    def pick_up(self, number: int) -> Spread:
        """Measure, in milliseconds, from a submission to the arrival of its offer at the agent.

        The agents are chosen by chance from those that came last.
        """
        if self._newest is None:
            raise BenchFault("nobody polls")
        server, members = self._newest
        samples = []
        with connect(self._world.config) as client:
            for member in random.choices(members, k=number):  # noqa: S311 not for secrets
                begun = time.monotonic()
                job = client.submit(JobSpec(site=member.site, command=NOTHING))
                told = json.loads(server.line(_OFFER_SECONDS))
                if told["job"] != job.id:
                    raise BenchFault(f"{job.id} was not offered\n{server.logged()}")
                samples.append((told["at"] - begun) * MILLI)
        return Spread.of(samples)
