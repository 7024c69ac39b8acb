"""The long poll's answer breaks off: the offer in it is made again, or was taken; never both."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from functools import partial

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream

from sekisho.adapters.http_client import Address
from sekisho.adapters.mailbox_https import HttpsMailbox
from sekisho.api import new_job_id
from sekisho.domain.access import Role
from sekisho.domain.errors import Unreachable
from sekisho.domain.limits import OFFER_TIME
from sekisho.domain.token import make_token
from tests.faults.program import call
from tests.faults.trio import NOWHERE, WHOLE_LIFE, Trio
from tests.proxy import HOST, CutDown, Fault, Request, Torn, proxy
from tests.world import an_id

BODY = b'{"offers":[{"job":"%b","epoch":1,"submitter":"alice","request":"","accept_s":60}]}'
AGAIN = ["queued", "offered", *WHOLE_LIFE[1:]]


@pytest.mark.anyio
async def test_an_answer_cut_at_any_byte_is_no_answer() -> None:
    """Every byte of a whole offer, head and body; kills: taking what has arrived for all."""
    body = BODY % an_id("job").encode()
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    heard: list[int | str] = []
    address = Address(url=NOWHERE, token=make_token(Role.SITE, bytes(32)))
    async with (
        await anyio.create_tcp_listener(local_host=HOST) as listener,
        anyio.create_task_group() as group,
    ):
        group.start_soon(listener.serve, partial(answer_with, whole))
        with proxy() as line:
            line.upstream = listener.extra(SocketAttribute.local_port)  # noqa: S610 (anyio's)
            there = replace(address, url=f"http://{HOST}:{line.port}")
            async with HttpsMailbox(there, an_id("ins")) as mailbox:
                for count in range(len(whole) + 1):
                    fault = CutDown(count)
                    line.rule = partial(always, fault)
                    heard.append(await offers_or_why(mailbox))
        group.cancel_scope.cancel()
    assert heard == ["cut"] * len(whole) + [1]


async def answer_with(whole: bytes, stream: SocketStream) -> None:
    async with stream:
        head = b""
        while b'"free"' not in head:
            head += await stream.receive()
        await stream.send(whole)


def always(fault: Fault, _request: Request) -> Fault:
    return fault


async def offers_or_why(mailbox: HttpsMailbox) -> int | str:
    """Return how many offers a poll brought, or why it failed."""
    try:
        answer = await mailbox.poll(free=1, holds=(), cancelling=(), wait_s=0)
    except Unreachable as error:
        return str(error.params["why"])
    return len(answer.offers)


def test_an_offer_that_was_cut_is_made_again_and_starts_once(trio: Trio) -> None:
    """An offer whose answer broke is made anew when its agent asks again, not when it runs out."""
    cuts = {new_job_id(): count for count in [*range(0, 401, 40), 100_000]}
    trio.proxy.rule = lambda request: Torn(partial(first_offer, cuts)) if is_poll(request) else None
    with trio.connect() as client:
        jobs = []
        for job_id, count in cuts.items():
            jobs.append(client.submit(trio.spec(f"cut-{count}"), job_id=job_id))
            trio.broker.event("job_changed", job=job_id, state="offered")
            client.submit(trio.spec(f"whole-{count}")).wait(timeout=60)  # the line heals
        for job in jobs:
            assert job.wait(timeout=60).state == "succeeded"
    assert set(trio.starts().values()) == {1}
    assert len(trio.starts()) == 2 * len(jobs)
    lives = {count: trio.life(job_id) for job_id, count in cuts.items()}
    assert lives.pop(100_000) == WHOLE_LIFE[1:]
    assert all(life == AGAIN for life in lives.values())
    for job_id, count in cuts.items():
        if count < 100_000:
            assert seconds_offered(trio, job_id) < OFFER_TIME.total_seconds()


def seconds_offered(trio: Trio, job_id: str) -> float:
    """Return how long the job's first offer stood before the job was queued again."""
    out, _ = call(trio.environ, "broker", "show", job_id, "--json", "-c", trio.broker_config)
    history = [(step["state"], step["at"]) for step in json.loads(out)["history"]]
    states = [state for state, _ in history]
    made = states.index("offered")
    first, then = (datetime.fromisoformat(history[n][1]) for n in (made, made + 1))
    return (then - first).total_seconds()


def is_poll(request: Request) -> bool:
    return request.route == "POST /v1/site/poll"


def first_offer(cuts: dict[str, int], answer: bytes) -> int | None:
    """Return where to cut an answer with the first offer of a job that is to suffer."""
    first = (b'"job":"%b","epoch":1,' % job.encode() for job in cuts)
    return next((c for c, words in zip(cuts.values(), first, strict=True) if words in answer), None)
