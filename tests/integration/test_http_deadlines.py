"""Whoever connects to the broker and does not go on is let go, and costs nobody else anything."""

from __future__ import annotations

import json
import select
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from sekisho.adapters.http_connection import MAX_HEAD_BYTES, Deadlines
from tests.integration.http_process import certificates
from tests.integration.small_server import MUCH

LONG = 3600.0  #: of a phase that the test is not about
SOON = 0.5
PATIENCE_SECONDS = 60
ROOT = Path(__file__).parents[2]
GET = b"GET /good HTTP/1.1\r\nHost: broker\r\n\r\n"
HALF_A_BODY = b"POST /good HTTP/1.1\r\nHost: broker\r\nContent-Length: 8\r\n\r\nhalf"
NEVER = Deadlines(handshake_s=LONG, head_s=LONG, rest_s=LONG, idle_s=LONG, stalled_s=LONG)


@contextmanager
def a_server(idle: int = 100, files: tuple[Path, ...] = (), **limits: float) -> Iterator[int]:
    """Give the port of a server whose deadlines are ``limits``; all others are far away."""
    deadlines = json.dumps(asdict(NEVER) | limits)
    argv = [sys.executable, "-m", "tests.integration.small_server", deadlines, str(idle)]
    with subprocess.Popen(
        [*argv, *map(str, files)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)


def answered(caller: socket.socket, request: bytes = GET) -> bool:
    """Send ``request`` and say whether the whole answer came."""
    got = b""
    try:
        caller.sendall(request)
        while piece := caller.recv(65_536):
            got += piece
            if got.endswith(b"good"):
                return True
    except (ConnectionError, ssl.SSLError):
        pass
    return False


def left(caller: socket.socket) -> bool:
    """Wait until the server closes; say whether it did."""
    try:
        while caller.recv(65_536):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


def drip(caller: socket.socket, data: bytes) -> Callable[[], None]:
    """Go on sending ``data`` byte by byte until the returned function is called."""
    stop = threading.Event()

    def run() -> None:
        at = 0
        while not stop.wait(SOON / 10):
            try:
                caller.send(data[at % len(data)].to_bytes())
            except OSError:
                return
            at += 1

    thread = threading.Thread(target=run)
    thread.start()

    def end() -> None:
        stop.set()
        thread.join()

    return end


def nothing(_: socket.socket) -> None:
    pass


def half_a_head(caller: socket.socket) -> None:
    caller.sendall(GET[:-3])


def half_of_a_second_head(caller: socket.socket) -> None:
    assert answered(caller)
    caller.sendall(GET[:-3])


@pytest.mark.parametrize("begin", [nothing, half_a_head, half_of_a_second_head])
def test_a_head_that_does_not_come_is_not_waited_for(
    begin: Callable[[socket.socket], None],
) -> None:
    with a_server(head_s=SOON) as port, connected(port) as caller:
        begin(caller)
        assert left(caller)


@pytest.mark.parametrize("data", [b"x", b"\r\n"], ids=["a header", "empty lines"])
def test_a_head_that_drips_ends_when_one_that_stands_still_does(data: bytes) -> None:
    """Kills: a deadline that every byte begins anew."""
    with a_server(head_s=4 * SOON) as port, connected(port) as caller:
        if data == b"x":
            caller.sendall(b"GET /good HTTP/1.1\r\nX-Slow: ")
        end = drip(caller, data)
        try:
            assert left(caller)
        finally:
            end()


def test_empty_lines_do_not_keep_an_idle_connection() -> None:
    with a_server(idle_s=4 * SOON) as port, connected(port) as caller:
        assert answered(caller)
        end = drip(caller, b"\r\n")
        try:
            assert left(caller)
        finally:
            end()


def test_a_head_of_endless_length_is_refused_while_it_arrives() -> None:
    with a_server() as port, connected(port) as caller:
        caller.sendall(b"GET /good HTTP/1.1\r\nX-Long: ")
        with pytest.raises(ConnectionError):
            caller.sendall(b"x" * (64 << 20))
        assert serves(port)


READ = b"POST /read HTTP/1.1\r\nHost: broker\r\nTransfer-Encoding: chunked\r\nX-User: taro\r\n\r\n"


@pytest.mark.parametrize("apart", [False, True], ids=["in one piece", "apart"])
def test_what_follows_a_body_is_no_header(apart: bool) -> None:
    """Kills: a name that a gateway takes out of the head, believed when it follows the body."""
    with a_server() as port, connected(port) as caller:
        end = b"1\r\nx\r\n0\r\nX-User: hanako\r\n\r\n"
        pieces = [READ, *(end[i : i + 1] for i in range(len(end)))] if apart else [READ + end]
        for piece in pieces:
            caller.sendall(piece)
        assert heard(caller) == b"1 bytes of <taro> good"
        assert answered(caller), "the next request begins where this one ended"


def heard(caller: socket.socket) -> bytes:
    """Return the body of the next answer."""
    got = b""
    while not got.endswith(b"good"):
        piece = caller.recv(65_536)
        assert piece, got
        got += piece
    return got.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize(
    ("begun", "endless"),
    [
        (b"1\r\nx\r\n0\r\nX-Long: ", b"x"),
        (b"1\r\nx\r\n0\r\n", b"X-Short: x\r\n"),
        (b"1;", b"x"),
    ],
    ids=["one value", "many lines", "a chunk's words"],
)
def test_what_is_no_body_does_not_grow_without_end(begun: bytes, endless: bytes) -> None:
    with a_server() as port, connected(port) as caller:
        caller.sendall(READ + begun)
        with pytest.raises(ConnectionError):
            caller.sendall(endless * ((64 << 20) // len(endless)))
        assert serves(port)


def test_a_long_body_in_chunks_is_read_whole() -> None:
    with a_server() as port, connected(port) as caller:
        chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
        caller.sendall(READ + chunk * 64 + b"0\r\n\r\n")
        assert heard(caller) == b"2097152 bytes of <taro> good"


def test_the_longest_head_that_is_good_is_taken() -> None:
    with a_server() as port, connected(port) as caller:
        filling = b"x" * (MAX_HEAD_BYTES - 100)
        caller.sendall(b"GET /good HTTP/1.1\r\nX-Long: " + filling)
        assert answered(caller, b"\r\n\r\n")


def serves(port: int) -> bool:
    with connected(port) as caller:
        return answered(caller)


def test_the_rest_of_what_was_refused_is_not_waited_for() -> None:
    """The answer comes before the body has; then the body has its own time."""
    with a_server(rest_s=SOON) as port, connected(port) as caller:
        assert answered(caller, HALF_A_BODY)
        assert left(caller)


def test_a_rest_without_a_length_is_not_heard_at_all() -> None:
    with a_server() as port, connected(port) as caller:
        chunked = HALF_A_BODY.replace(b"Content-Length: 8", b"Transfer-Encoding: chunked")
        assert answered(caller, chunked.replace(b"half", b"4\r\nhalf\r\n"))
        assert left(caller)


def test_the_rest_of_what_was_refused_may_arrive_and_another_request_follow() -> None:
    with a_server() as port, connected(port) as caller:
        assert answered(caller, HALF_A_BODY)
        caller.sendall(b"half")
        assert answered(caller)


def test_whoever_does_not_read_the_answer_is_let_go() -> None:
    with a_server(stalled_s=SOON) as port, connected(port) as caller:
        caller.sendall(GET.replace(b"good", b"much"))
        assert gone_with_less_than(MUCH, caller)


def gone_with_less_than(size: int, caller: socket.socket) -> bool:
    """Read nothing until the server has given up; say whether an answer of ``size`` was cut."""
    closed = select.poll()
    closed.register(caller, select.POLLRDHUP)
    assert closed.poll(PATIENCE_SECONDS * 1000)
    got = 0
    try:
        while piece := caller.recv(1 << 20):
            got += len(piece)
    except ConnectionError:
        pass
    return got < size


def test_whoever_reads_slowly_gets_all_of_it() -> None:
    """Kills: a deadline for the whole answer, not for its standing still."""
    with a_server(stalled_s=6 * SOON) as port, connected(port) as caller:
        caller.sendall(GET.replace(b"good", b"much"))
        got, pause = 0, threading.Event()
        while got < MUCH:
            piece = caller.recv(4 << 20, socket.MSG_WAITALL)
            assert piece, got
            got += len(piece)
            pause.wait(SOON)


def test_a_connection_that_speaks_no_tls_is_not_waited_for(tmp_path: Path) -> None:
    tls = certificates(tmp_path)
    with a_server(handshake_s=SOON, files=(tls.cert, tls.key)) as port, connected(port) as caller:
        assert left(caller)
        with tls.trust.wrap_socket(connected(port), server_hostname="127.0.0.1") as good:
            assert answered(good)


def test_a_full_waiting_room_is_left_by_whoever_waited_longest() -> None:
    """Five hundred silent callers take the places of each other, and nobody else's."""
    places = 20
    with a_server(idle=places) as port, ExitStack() as stack:
        callers = [stack.enter_context(connected(port)) for _ in range(500)]
        assert left(callers[0])
        assert serves(port)
        assert all(left(caller) for caller in callers[: 500 - places])
        assert answered(callers[-1])


def test_without_deadlines_the_same_callers_stay() -> None:
    """The control: what lets them go is what these tests are about."""
    with a_server() as port, connected(port) as silent, connected(port) as half:
        half.sendall(GET[:-3])
        assert not select.select([silent, half], [], [], 3 * SOON)[0]
        assert answered(half, GET[-3:])
