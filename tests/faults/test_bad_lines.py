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
    Flipped,
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


#: Gives back as much as came, but none of it as it came: nothing is there already.
TURN = "mkdir out && tr '\\000-\\377' '\\001-\\377\\000' < in/given > out/turned"
#: The requests that carry files, and whether they do so on their way back.
LEGS = {
    "PUT /v1/jobs/{id}/chunks": False,
    "POST /v1/site/jobs/{id}/chunks/fetch": True,
    "PUT /v1/site/jobs/{id}/chunks": False,
    "POST /v1/jobs/{id}/chunks/fetch": True,
}


class OncePerLeg:
    """Changes one byte of what each leg carries, and never again."""

    def __init__(self, at: int) -> None:
        self._at = at
        self.hit: set[str] = set()

    def __call__(self, request: Request) -> Fault | None:
        if request.route not in LEGS or request.route in self.hit:
            return None
        self.hit.add(request.route)
        return Flipped(self._at, down=LEGS[request.route])


@pytest.mark.parametrize("at", [0, 33, 300], ids=["digest", "length", "payload"])
def test_a_job_gets_through_a_line_that_flips_a_bit_on_every_leg(trio: Trio, at: int) -> None:
    """Kills: a file that is wrong; and a job that is given up for what the line did."""
    given = trio.home / "given"
    given.write_bytes(GIVEN)
    (trio.home / "work.sh").write_text(TURN)
    trio.proxy.rule = line = OncePerLeg(at)
    with trio.connect() as client:
        job = client.submit(trio.spec("one", source=given))
        assert job.result(trio.home / "got", timeout=300).state == "succeeded"
    assert line.hit == LEGS.keys()
    turned = GIVEN.translate(bytes([*range(1, 256), 0]))
    assert (trio.home / "got/out/turned").read_bytes() == turned
    assert trio.life(job.id) == WHOLE_LIFE
