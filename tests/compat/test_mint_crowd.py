"""A hundred old agents beside a thousand new ones: everybody gets what is theirs, and only that.

An old agent asks every 30 s; here each asks every two seconds, so that a short test is the harder
one. What they cost at their own pace is measured by `./dev bench mint`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sekisho.adapters.logging_setup import set_up_logging
from sekisho.api import JobSpec, connect
from sekisho.compose.broker import desk
from sekisho.config.broker import load_broker
from sekisho.domain.access import Principal, Role
from sekisho.domain.ids import make_id
from sekisho.domain.token import hash_token, make_token
from sekisho.wire.v1 import JoinSite
from tests.compat.old_programs import LISTED, STDOUT, House, OldWorkflow, a_house
from tests.faults.trio import private
from tests.integration.http_process import sekisho

OLD, NEW, JOBS = 100, 1000, 30
SECONDS = 240
SITES = "".join(
    f'[mint.site.old-{n}]\nunguarded = true\ncommands = {{ solve = "{LISTED}" }}\n'
    for n in range(OLD)
)
SETTINGS = f"[quota]\nfree_floor_bytes = 0\n[mint]\nenabled = true\n{SITES}"
FILE = {"content": "MQ==", "mimetype1": "text/plain;", "mimetype2": "charset=us-ascii"}


@dataclass(frozen=True, slots=True)
class Member:
    site: str
    instance: str
    token: str


@dataclass
class Crowd:
    """What everybody saw."""

    port: int
    here: int = 0
    all_here: asyncio.Event = field(default_factory=asyncio.Event)
    offered: dict[str, str] = field(default_factory=dict)  #: job: site, of new agents
    taken: dict[str, list[str]] = field(default_factory=dict)  #: accept id: sites, of old ones
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask(self, line: Line, method: str, path: str, message: Any = None) -> Any:
        status, body = await line.ask(method, path, message)
        assert status in (200, 204), (path, status, body)
        return json.loads(body) if body else {}


@dataclass
class Line:
    """One connection that is kept."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    token: str

    @classmethod
    @asynccontextmanager
    async def open(cls, port: int, token: str) -> AsyncIterator[Line]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield cls(reader, writer, token)
        finally:
            writer.close()

    async def ask(self, method: str, path: str, message: Any) -> tuple[int, bytes]:
        body = b"" if message is None else json.dumps(message).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: broker\r\nContent-Length: {len(body)}\r\n"
            f"Content-Type: application/json\r\nAuthorization: Bearer {self.token}\r\n\r\n"
        )
        self.writer.write(head.encode() + body)
        answer = await self.reader.readuntil(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in answer.split(b"\r\n")[1:-2])
        size = int(fields.get(b"content-length", b"0"))
        return int(answer[9:12]), await self.reader.readexactly(size)


async def new_agent(crowd: Crowd, member: Member, door: asyncio.Semaphore) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with door:
            line = await stack.enter_async_context(Line.open(crowd.port, member.token))
        await poll_on(crowd, member, line)


async def poll_on(crowd: Crowd, member: Member, line: Line) -> None:
    poll = {"instance": member.instance, "free": 1, "wait_s": 25.0, "agent_version": "test"}
    crowd.here += 1
    if crowd.here == NEW:
        crowd.all_here.set()
    while not crowd.ended.is_set():
        answer = await crowd.ask(line, "POST", "/v1/site/poll", poll)
        for offer in answer.get("offers", []):
            crowd.offered[offer["job"]] = member.site
            verdict = {
                "epoch": offer["epoch"],
                "instance": member.instance,
                "verdict": "refused",
                "result": "",
            }
            await crowd.ask(line, "POST", f"/v1/site/jobs/{offer['job']}/verdict", verdict)


async def old_agent(crowd: Crowd, site: str, token: str) -> None:
    """Ask until there is a calculation, carry it through, and ask on."""
    async with Line.open(crowd.port, token) as line:
        served = False
        while not (served and crowd.ended.is_set()):
            served |= await serve_one(crowd, site, line)


async def serve_one(crowd: Crowd, site: str, line: Line) -> bool:
    """Serve what waits, and say whether anything did."""
    base = "/mi-distcomp-api"
    answer = await crowd.ask(line, "GET", f"{base}/calc-request?site_id={site}")
    accept_id = answer["errors"][0].get("accept_id")
    if accept_id is None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(crowd.ended.wait(), 2)
        return False
    named = {"accept_id": accept_id, "site_id": site}
    query = f"site_id={site}&accept_id={accept_id}"
    given = await crowd.ask(line, "GET", f"{base}/calc-params?{query}")
    assert given["calc-info"]["remote-site"] == site
    crowd.taken.setdefault(accept_id, []).append(site)
    for call, more in (
        ("calc-params-complete", {}),
        ("calc-start", {}),
        ("calc-end", {"result": "calc end"}),
        ("send-results", {"result_files": {STDOUT: FILE}}),
        ("end-send", {"result": "end send"}),
    ):
        answer = await crowd.ask(line, "POST", f"{base}/{call}", {**named, **more})
        assert answer["errors"][0]["code"] == 200, (call, answer)
    return True


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    made = a_house(tmp_path, SETTINGS)
    with made.serving():
        yield made
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def joined(house: House) -> list[Member]:
    """Add the sites; return the new agents."""
    set_up_logging("error")
    members, users = [], frozenset({"tanaka"})
    with desk(load_broker(house.config)) as services:
        for n in range(OLD):
            services.sites.add(f"old-{n}", users)
        for n in range(NEW):
            site = f"new-{n}"
            services.sites.add(site, users)
            invitation, _ = services.tokens.invite(site)
            secret = make_token(Role.SITE, secrets.token_bytes(32)).reveal()
            instance = make_id("ins", at_ms=n, entropy=secrets.token_bytes(10))
            invited = Principal(token_id=invitation.id, role=Role.INVITATION, name=site)
            joining = JoinSite(instance=instance, token_hash=hash_token(secret))
            services.tokens.join(invited, joining)
            members.append(Member(site, instance, secret))
    return members


def worked(house: House) -> tuple[list[str], dict[str, str]]:
    """Give one calculation to each old site and jobs to some new ones; wait for their ends."""
    private(house.place / "token", house.token("tanaka"))
    reach = ("--broker", house.url, "--token-file", house.place / "token")
    sekisho("--config", house.place / "client.toml", "client", "init", *reach)
    with house.line() as line, connect(house.place / "client.toml") as client:
        workflow = OldWorkflow(line)
        calcs = [workflow.ready(site=f"old-{n}") for n in range(OLD)]
        jobs = {}
        for n in range(0, NEW, NEW // JOBS):
            job = client.submit(JobSpec(site=f"new-{n}", command="nothing"))
            jobs[job.id] = f"new-{n}"
            job.wait(SECONDS)
        for accept_id in calcs:
            while workflow.progress(accept_id) != "got return":
                pass
            assert workflow.result(accept_id)[STDOUT] == FILE
    return calcs, jobs


@pytest.mark.time_limit(2 * SECONDS + 300)
def test_everybody_gets_what_is_theirs(house: House) -> None:
    members = joined(house)
    token = house.token("tanaka")

    async def everybody() -> None:
        crowd, door = Crowd(house.broker.port), asyncio.Semaphore(50)
        async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as tasks:
            for member in members:
                tasks.create_task(new_agent(crowd, member, door))
            for n in range(OLD):
                tasks.create_task(old_agent(crowd, f"old-{n}", token))
            await crowd.all_here.wait()
            calcs, jobs = await asyncio.to_thread(worked, house)
            crowd.ended.set()
            assert crowd.taken == {calc: [f"old-{n}"] for n, calc in enumerate(calcs)}
            assert crowd.offered == jobs
            # A poll that is held ends with the broker: nobody has to wait for it.
            raise Done

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(everybody())
    assert caught.group_contains(Done)
    assert len(caught.value.exceptions) == 1
    status = Path(f"/proc/{house.broker.process.pid}/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    assert int(peak.split()[1]) < 400 << 10


class Done(Exception):
    """Everything was seen."""
