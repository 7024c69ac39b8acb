"""Waiting for news: woken at once, answered on time, let go when the broker stops."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import httpx2
import msgspec
import pytest
from anyio import to_thread

from sekisho.adapters.clock_system import SystemClock
from sekisho.domain.access import Role
from sekisho.wire.v1 import Poll
from tests.component.broker_world import AGENT, World
from tests.integration.http_world import HttpWorld

pytestmark = pytest.mark.anyio

LONG = 25.0


class RealTime(HttpWorld):
    """Long polls wait in real time."""

    __slots__ = ()

    def __post_init__(self) -> None:
        self.world = World(clock=SystemClock())  # type: ignore[arg-type]
        super().__post_init__()


def a_poll(wait_s: float = LONG, **changes: Any) -> bytes:
    usual: dict[str, Any] = {"instance": AGENT, "free": 1, "wait_s": wait_s}
    return msgspec.json.encode(Poll(**(usual | changes)))


async def answer_after(
    http_world: HttpWorld,
    ask: Callable[[], Awaitable[httpx2.Response]],
    act: Callable[[], Any],
) -> httpx2.Response:
    """Return the answer to ``ask``, which waits until ``act`` is done in another thread."""
    answers: list[httpx2.Response] = []

    async def asking() -> None:
        answers.append(await ask())

    with anyio.fail_after(LONG / 2):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(asking)
            while not http_world.polls.wakeups._listeners:  # type: ignore[attr-defined]  # noqa: SLF001
                await anyio.lowlevel.checkpoint()
            await to_thread.run_sync(act)
    return answers[0]


async def test_a_waiting_agent_is_offered_a_new_job_at_once() -> None:
    http_world = RealTime()
    async with http_world.as_role(Role.SITE, "one") as http:
        answer = await answer_after(
            http_world,
            lambda: http.post("/v1/site/poll", content=a_poll()),
            http_world.world.submit,
        )
    assert len(answer.json()["offers"]) == 1
    assert http_world.world.desk.meter.get("polling") == 0


async def test_a_waiting_agent_hears_of_a_cancel_at_once() -> None:
    http_world = RealTime()
    world = http_world.world
    offer = world.held()
    message = a_poll(free=0, holds=[offer.job])
    async with http_world.as_role(Role.SITE, "one") as http:
        answer = await answer_after(
            http_world,
            lambda: http.post("/v1/site/poll", content=message),
            lambda: world.desk.submissions.cancel("alice", offer.job),
        )
    assert answer.json() == {"cancel": [offer.job], "disabled_commands": []}


async def test_a_waiting_agent_hears_of_a_disabled_command_at_once() -> None:
    http_world = RealTime()
    world = http_world.world
    async with http_world.as_role(Role.SITE, "one") as http:
        answer = await answer_after(
            http_world,
            lambda: http.post("/v1/site/poll", content=a_poll()),
            lambda: world.desk.sites.switch("one", disabled=True, command="solve"),
        )
        assert answer.json() == {"disabled_commands": ["solve"]}
        idle = await http.post("/v1/site/poll", content=a_poll(0.01))
        assert idle.json() == {"disabled_commands": ["solve"]}


async def test_a_waiting_submitter_sees_a_change_at_once() -> None:
    http_world = RealTime()
    world = http_world.world
    job = world.submit()
    async with http_world.as_role(Role.SUBMITTER, "alice") as http:
        path = f"/v1/jobs/{job.id}?version={job.version}&wait_s={LONG}"
        answer = await answer_after(http_world, lambda: http.get(path), world.offer)
    assert answer.json()["state"] == "offered"


async def test_a_short_life_is_told_in_one_answer_which_comes_with_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sekisho.http.submitter_calls.SETTLE_SECONDS", LONG)
    http_world = RealTime()
    world = http_world.world
    job = world.submit()

    def live() -> None:
        offer = world.offer()
        world.accept(offer)
        world.report(offer, "started", "ended")
        world.verdict(offer)

    async with http_world.as_role(Role.SUBMITTER, "alice") as http:
        path = f"/v1/jobs/{job.id}?version={job.version}&wait_s={LONG}"
        answer = await answer_after(http_world, lambda: http.get(path), live)
    assert answer.json()["state"] == "succeeded"


async def test_who_waits_for_the_end_is_told_nothing_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Kills: an answer at a change that nobody asked for; a busy broker gave four a job."""
    monkeypatch.setattr("sekisho.http.submitter_calls.SETTLE_SECONDS", 0.0)
    http_world = RealTime()
    world = http_world.world
    job = world.submit()
    async with http_world.as_role(Role.SUBMITTER, "alice") as http:
        path = f"/v1/jobs/{job.id}?version={job.version}&end=true&wait_s="
        with anyio.fail_after(LONG / 2):
            assert (await http.get(f"{path}0.02")).json()["state"] == "queued"
        offered = world.offer()
        with anyio.fail_after(LONG / 2):
            assert (await http.get(f"{path}0.02")).json()["state"] == "offered"
        world.accept(offered)
        answer = await answer_after(
            http_world,
            lambda: http.get(f"{path}{LONG}"),
            lambda: world.verdict(offered, steps=["started", "ended"]),
        )
    assert answer.json()["state"] == "succeeded"


async def test_an_ended_job_and_a_changed_one_are_shown_without_waiting() -> None:
    http_world = RealTime()
    world = http_world.world
    job = world.submit()
    async with http_world.as_role(Role.SUBMITTER, "alice") as http:
        with anyio.fail_after(LONG / 2):
            await http.get(f"/v1/jobs/{job.id}?version={job.version - 1}&wait_s={LONG}")
            await http.get(f"/v1/jobs/{job.id}?wait_s={LONG}")
            ended = world.desk.submissions.cancel("alice", job.id)
            await http.get(f"/v1/jobs/{job.id}?version={ended.version}&wait_s={LONG}")


async def test_a_wait_without_news_ends_with_a_complete_answer() -> None:
    http_world = RealTime()
    job = http_world.world.submit(has_inputs=True)
    async with http_world.as_role(Role.SUBMITTER, "alice") as http:
        answer = await http.get(f"/v1/jobs/{job.id}?version={job.version}&wait_s=0.02")
        assert answer.json()["state"] == "draft"
    async with http_world.as_role(Role.SITE, "one") as http:
        silent = await http.post("/v1/site/poll", content=a_poll(0.02))
        assert (silent.status_code, silent.content) == (204, b"")
        assert (await http.get("/v1/site/check?idle_s=0.02")).json()["name"] == "one"


async def test_a_stopping_broker_lets_everybody_go() -> None:
    http_world = RealTime()
    job = http_world.world.submit(has_inputs=True)
    token = http_world.world.token(Role.SITE, "one")
    async with (
        http_world.client(token) as agent,
        http_world.as_role(Role.SUBMITTER, "alice") as user,
    ):
        answer = await answer_after(
            http_world,
            lambda: agent.post("/v1/site/poll", content=a_poll()),
            http_world.polls.drain,
        )
        assert answer.status_code == 204
        with anyio.fail_after(LONG / 2):  # and nobody waits any more
            await user.get(f"/v1/jobs/{job.id}?version={job.version}&wait_s={LONG}")
            await agent.get(f"/v1/site/check?idle_s={LONG}")
        ready = await user.get("/health/ready")
        assert ready.status_code == 503
        assert ready.json()["params"] == {"failed": ["draining"]}


async def test_nothing_is_offered_to_an_agent_that_has_hung_up() -> None:
    """The job stays queued for the next poll instead of waiting out an offer nobody heard."""
    http_world = RealTime()
    world = http_world.world
    token = world.token(Role.SITE, "one")
    body = a_poll()
    arrived = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return arrived.pop() if arrived else {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        return

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/site/poll",
        "raw_path": b"/v1/site/poll",
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {token}".encode())],
    }
    job = world.submit()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(http_world.app, scope, receive, send)
        while not http_world.polls.wakeups._listeners:  # type: ignore[attr-defined]  # noqa: SLF001
            await anyio.lowlevel.checkpoint()
        http_world.polls.drain()
    assert world.job(job.id).state == "queued"
