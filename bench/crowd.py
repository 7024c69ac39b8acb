"""Many agents with nothing to do, in one process: `python -m bench.crowd PORT CA MEMBERS`.

Each has a TLS connection and a token of its own and keeps one long poll open. An offer is told on
standard output with the moment of its arrival, on the machine's monotonic clock, and refused.
The process ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import sys
import time
from pathlib import Path

import msgspec
import uvloop

from bench.connection import Connection
from bench.process import raise_open_files
from sekisho.domain.limits import POLL_SECONDS
from sekisho.wire.v1 import Offer, Poll, PollAnswer, Verdict

#: How many may be connecting at once.
_HANDSHAKES = 32
_AGAIN_SECONDS = 1.0


class Agent:
    """One member of the crowd."""

    def __init__(self, port: int, trust: ssl.SSLContext, member: dict[str, str]) -> None:
        self._port = port
        self._trust = trust
        self._instance = member["instance"]
        self._token = member["token"]
        poll = Poll(instance=self._instance, free=1, wait_s=POLL_SECONDS, agent_version="bench")
        self._poll = msgspec.json.encode(poll)

    async def live(self, door: asyncio.Semaphore) -> None:
        """Poll for ever; a line that breaks is made anew."""
        while True:
            try:
                async with door:
                    line = await Connection.open(self._port, self._trust)
                await self._poll_on(line)
            except (OSError, EOFError, ssl.SSLError) as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
                await asyncio.sleep(_AGAIN_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 jitter

    async def _poll_on(self, line: Connection) -> None:
        while True:
            status, body = await line.ask("POST", "/v1/site/poll", self._poll, self._token)
            arrived = time.monotonic()
            if status not in (200, 204):
                raise OSError(status)
            answer = msgspec.json.decode(body, type=PollAnswer) if body else PollAnswer()
            for offer in answer.offers:
                print(json.dumps({"job": offer.job, "at": arrived}), flush=True)
                await self._refuse(line, offer)

    async def _refuse(self, line: Connection, offer: Offer) -> None:
        verdict = Verdict(
            epoch=offer.epoch, instance=self._instance, verdict="refused", result=b"bench"
        )
        path = f"/v1/site/jobs/{offer.job}/verdict"
        await line.ask("POST", path, msgspec.json.encode(verdict), self._token)


async def _main(port: int, ca: str, members: list[dict[str, str]]) -> None:
    trust = ssl.create_default_context(cafile=ca)
    door = asyncio.Semaphore(_HANDSHAKES)
    agents = [asyncio.create_task(Agent(port, trust, member).live(door)) for member in members]
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    for agent in agents:
        agent.cancel()


if __name__ == "__main__":
    raise_open_files()
    uvloop.run(_main(int(sys.argv[1]), sys.argv[2], json.loads(Path(sys.argv[3]).read_text())))
