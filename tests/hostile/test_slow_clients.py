"""Hundreds of callers who never finish what they began do not keep anybody else from working."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import msgspec
import pytest

from sekisho.api import Executor
from tests.component.broker_world import a_submission
from tests.faults.trio import SITE, Trio, a_trio, make_template
from tests.proxy import HOST

SLOW = 300
JOBS = 24


@pytest.fixture
def trio(tmp_path: Path) -> Iterator[Trio]:
    make_template(tmp_path / "template")
    with a_trio(tmp_path / "template", tmp_path / "trio") as made:
        made.start_broker()
        made.start_agent()
        yield made


def half_a_head(_token: str, _job: str) -> bytes:
    return b"GET /v1/jobs HTTP/1.1\r\nHost: broker\r\nX-Slow: "


def nothing(_token: str, _job: str) -> bytes:
    return b""


def half_a_body(token: str, _job: str) -> bytes:
    """A submission that stops in its middle, by somebody who is known."""
    return (
        "POST /v1/jobs HTTP/1.1\r\nHost: broker\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: 5000\r\n\r\n"
        '{"id":'
    ).encode()


def half_a_chunk(token: str, job: str) -> bytes:
    """A stream of chunks that stops in its middle, by somebody who is known."""
    return (
        f"PUT /v1/jobs/{job}/chunks HTTP/1.1\r\nHost: broker\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: 900000\r\n\r\n"
        "half a frame"
    ).encode()


def a_long_wait(token: str, _job: str) -> bytes:
    """A whole question whose answer is never read."""
    return (
        f"GET /v1/jobs HTTP/1.1\r\nHost: broker\r\nAuthorization: Bearer {token}\r\n\r\n" * 20
    ).encode()


Begin = Callable[[str, str], bytes]
WAYS: list[Begin] = [nothing, half_a_head, half_a_body, half_a_chunk, a_long_wait]


def a_draft(port: int, token: str) -> str:
    """Make a job that waits for its inputs, so that the broker reads what is sent for it."""
    message = a_submission(has_inputs=True, site=SITE)
    url, head = f"http://{HOST}:{port}/v1/jobs", {"Authorization": f"Bearer {token}"}
    with httpx2.Client(headers=head, trust_env=False) as http:
        assert http.post(url, content=msgspec.json.encode(message)).status_code == 201
    return message.id


@contextmanager
def slow_callers(trio: Trio, way: Begin) -> Iterator[list[socket.socket]]:
    """Begin something on hundreds of connections and do not go on with it."""
    token = (trio.home / "token").read_text().strip()
    job = a_draft(trio.proxy.upstream, token)
    with ExitStack() as stack:
        callers = []
        for _ in range(SLOW):
            caller = socket.create_connection((HOST, trio.proxy.upstream), 30)
            stack.enter_context(caller)
            caller.sendall(way(token, job))
            callers.append(caller)
        yield callers


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_whoever_is_slow_delays_nobody_else(trio: Trio, way: Begin) -> None:
    """Whole jobs of somebody else complete while all the slow ones are still there.

    Those who have not even asked are let go after a while, which may be before the jobs' end.
    """
    with (
        slow_callers(trio, way) as callers,
        trio.connect() as client,
        Executor(client, SITE, into=trio.home / "got", max_jobs=8) as pool,
    ):
        assert still_there(callers) == SLOW
        keys = [{"key": f"job-{n}"} for n in range(JOBS)]
        ended = list(pool.map("work", keys, outputs=["out/**"]))
        assert len([result for result in ended if result.state == "succeeded"]) == JOBS
        assert way in (nothing, half_a_head) or still_there(callers) == SLOW


def still_there(callers: list[socket.socket]) -> int:
    """Count the connections that the broker has not closed."""

    def there(caller: socket.socket) -> bool:
        caller.setblocking(False)
        try:
            return caller.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    with ThreadPoolExecutor(4) as pool:
        return sum(pool.map(there, callers))
