"""The allowed bandwidth, in a time of the test's own, and what progress says of the pace."""

from __future__ import annotations

import httpx2

from sekisho.adapters.http_line import BYTES, HttpLine
from sekisho.adapters.http_sender import Call
from sekisho.adapters.throttle import Throttle
from sekisho.transfer.progress import Pace
from tests.memory_sender import memory_sender

BODY = bytes(300_000)


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def throttle(self, mbit_s: float | None) -> Throttle:
        return Throttle(mbit_s, self.wait, lambda: self.now)


def test_a_body_takes_the_time_that_it_may_take() -> None:
    time = Time()
    some = time.throttle(8)
    assert sum(map(len, some.counted(iter([bytes(50_000)] * 100)))) == 5_000_000
    assert 4.7 <= time.now - 1000 <= 5.0


def test_connections_share_what_is_allowed() -> None:
    time = Time()
    both = time.throttle(8)
    for _ in range(10):
        both.pass_on(250_000)
        list(both.counted(iter([bytes(250_000)])))
    assert 4.7 <= time.now - 1000 <= 5.0


def test_time_that_passed_unused_is_not_saved_up() -> None:
    time = Time()
    some = time.throttle(8)
    some.pass_on(1)
    time.now += 3600
    some.pass_on(5_000_000)
    assert time.now - 4600 >= 4.7


def test_without_a_limit_nothing_waits() -> None:
    time = Time()
    free = time.throttle(None)
    assert free.pieces(BODY) is BODY
    assert list(free.counted(iter([BODY]))) == [BODY]
    assert time.now == 1000


def test_a_limited_body_has_a_length_and_arrives_whole() -> None:
    seen: list[tuple[str | None, str | None, bytes]] = []

    def server(request: httpx2.Request) -> httpx2.Response:
        headers = request.headers
        seen.append(
            (headers.get("Content-Length"), headers.get("Transfer-Encoding"), request.read())
        )
        return httpx2.Response(200, stream=httpx2.ByteStream(BODY))

    line = HttpLine(memory_sender(httpx2.MockTransport(server)), max_mbit_s=1000)
    assert line.send(Call(method="PUT", path="x", body=BODY, content_type=BYTES)) == BODY
    assert seen == [(str(len(BODY)), None, BODY)]


def test_the_pace_is_that_since_the_last_look() -> None:
    pace = Pace()
    assert pace.at(100, 1.0) is None
    assert pace.at(300, 2.0) == 200
    assert pace.at(300, 3.0) is None
    assert pace.at(400, 5.0) == 50
    assert pace.at(0, 6.0) is None  # another transfer
