"""Whole jobs over every bad line that the proxy can be: they take longer, and that is all."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from tests.faults.trio import WHOLE_LIFE, Trio
from tests.proxy import (
    Closing,
    CutUp,
    EachRequest,
    Fault,
    Held,
    Instead,
    Proxy,
    Request,
    Reset,
    Stripped,
)

#: Its longest chunk is of 335,059 bytes: of others, one alone may be too long for a narrow line.
GIVEN = random.Random(0).randbytes(2_000_000)


def each_once(fault: Fault) -> Callable[[Proxy], None]:
    """Let every request of a job suffer at its first try."""

    def spoil(line: Proxy) -> None:
        line.rule = EachRequest(fault, 1, lambda request: not request.route.endswith("/poll"))

    return spoil


def closing(line: Proxy) -> None:
    """Close the connection after every answer, without having said so."""
    line.rule = lambda _: Closing()


def late(line: Proxy) -> None:
    """Hold every request back for a while."""

    def hold(_request: Request) -> Held:
        until = asyncio.Event()
        line.loop.call_later(0.2, until.set)
        return Held(until)

    line.rule = hold


def nameless(line: Proxy) -> None:
    """Take out the headers that only some proxies let pass."""
    line.rule = lambda _: Stripped("date")


def whole(line: Proxy) -> None:
    """Pass on only what is complete."""
    line.whole = True


def narrow(line: Proxy) -> None:
    """Take no body that holds two large chunks: the parts must become smaller."""
    line.max_body = 600_000


def forgetful(line: Proxy) -> None:
    """Drop every connection that is silent for a moment."""
    line.idle_s = 0.05


LINES = {
    "answers 502 itself": each_once(Instead(502)),
    "answers 503 itself": each_once(Instead(503)),
    "resets": each_once(Reset()),
    "breaks in the head of a request": each_once(CutUp(20)),
    "breaks in the body of a request": each_once(CutUp(500)),
    "closes": closing,
    "is late": late,
    "strips headers": nameless,
    "buffers": whole,
    "is narrow": narrow,
    "forgets": forgetful,
}


@pytest.mark.time_limit(600)
@pytest.mark.parametrize("name", LINES)
def test_a_job_gets_through_a_line_that(trio: Trio, name: str) -> None:
    given = trio.home / "given"
    given.write_bytes(GIVEN)
    LINES[name](trio.proxy)
    with trio.connect() as client:
        job = client.submit(trio.spec("one", source=given))
        result = job.result(trio.home / "got", timeout=300)
    assert result.state == "succeeded"
    assert (trio.proxy.refused > 0) == (name == "is narrow")
    assert (trio.home / "got/out/in/given").read_bytes() == given.read_bytes()
    assert trio.life(job.id) == WHOLE_LIFE
    assert trio.starts() == {"one": 1}
