"""What sends requests, against servers that answer, hang up, or say nothing: on real sockets."""

from __future__ import annotations

import errno
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import anyio
import httpcore2
import pytest

from sekisho.adapters.http_client import Address, async_sender, sender
from sekisho.adapters.http_line import HttpLine
from sekisho.adapters.http_problem import error_from
from sekisho.adapters.http_sender import MAX_ANSWER_BYTES, Call, Idle
from sekisho.adapters.mailbox_https import HttpsMailbox
from sekisho.domain.errors import ConfigError, TooLarge, Unreachable
from sekisho.domain.token import Secret
from sekisho.site.mailbox import Hold
from tests.integration.http_process import Certificates, certificates

GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
POST = Call(method="POST", path="v1/x", body=b'{"a": 1}', read_s=30)
Ask = Callable[[Address, list[Call]], list[bytes]]


class Server:
    """Answers each connection's requests with ``answers``, then hangs up; notes what was read."""

    def __init__(self, answers: list[bytes], tls: Certificates | None = None) -> None:
        self.read: list[bytes] = []  #: by each single read: a record of TLS, or a segment
        self.connections = 0
        self.answers = answers
        self._tls = None
        if tls is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(tls.cert, tls.key)
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._door.getsockname()[1]
        self.hung_up = threading.Event()
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def _serve(self) -> None:
        with suppress(OSError):  # closed
            while True:
                there, _ = self._door.accept()
                self.connections += 1
                self._threads.append(threading.Thread(target=self._one, args=(there,)))
                self._threads[-1].start()

    def _one(self, there: socket.socket) -> None:
        with there, suppress(OSError), self._safe(there) as line:
            self._talk(line)
        self.hung_up.set()

    def _safe(self, there: socket.socket) -> socket.socket:
        there.settimeout(60)
        return there if self._tls is None else self._tls.wrap_socket(there, server_side=True)

    def _talk(self, line: socket.socket) -> None:
        while self.answers and (data := line.recv(1 << 16)):
            self.read.append(data)
            line.sendall(self.answers.pop(0))

    def close(self) -> None:
        self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        for thread in self._threads:
            thread.join(60)


@contextmanager
def serving(*answers: bytes, tls: Certificates | None = None) -> Iterator[Server]:
    with closing(Server(list(answers), tls)) as server:
        yield server


def ask_sync(address: Address, calls: list[Call]) -> list[bytes]:
    with closing(sender(address)) as line:
        bodies = []
        for call in calls:
            with line.answer(call) as answer:
                bodies.append(answer.whole())
        return bodies


def ask_async(address: Address, calls: list[Call]) -> list[bytes]:
    async def main() -> list[bytes]:
        line = async_sender(address)
        try:
            return [(await line.answer(call))[1] for call in calls]
        finally:
            await line.aclose()

    return anyio.run(main)


@pytest.fixture(params=[ask_sync, ask_async])
def ask(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Ask:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    chosen: Ask = request.param
    return chosen


def plain(server: Server) -> Address:
    return Address(url=f"http://127.0.0.1:{server.port}/below", token=Secret("t"))


def safe(server: Server, tls: Certificates) -> Address:
    return Address(url=f"https://127.0.0.1:{server.port}", token=Secret("t"), ca_file=tls.ca)


def test_head_and_body_go_in_one_record_and_the_connection_is_used_again(
    ask: Ask, tmp_path: Path
) -> None:
    """Kills: a request in two records; a new connection for each."""
    tls = certificates(tmp_path)
    with serving(*[GOOD] * 3, tls=tls) as server:
        assert ask(safe(server, tls), [POST] * 3) == [b"ok"] * 3
    assert server.connections == 1
    assert len(server.read) == 3
    head, _, body = server.read[0].partition(b"\r\n\r\n")
    assert (head.split(b"\r\n")[0], body) == (b"POST /v1/x HTTP/1.1", POST.body)
    assert b"content-length: 8" in head.lower()


def test_a_connection_that_was_hung_up_meanwhile_is_not_used() -> None:
    """Kills: to send on a connection of which the end can be seen."""
    with serving(GOOD) as server, closing(sender(plain(server))) as line:
        for number in (1, 2):
            server.answers = [GOOD]
            with line.answer(POST) as answer:
                assert answer.whole() == b"ok"
            assert server.hung_up.wait(60)
            server.hung_up.clear()
            assert server.connections == number


def test_an_answer_that_breaks_off_is_cut(ask: Ask) -> None:
    with (
        serving(GOOD.replace(b"length: 2", b"length: 9")) as server,
        pytest.raises(Unreachable) as why,
    ):
        ask(plain(server), [POST])
    assert why.value.params == {"why": "cut"}


def test_an_answer_without_end_is_left_where_it_is_too_long(ask: Ask) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (1 << 40)
    with serving(head + bytes(MAX_ANSWER_BYTES + 1)) as server, pytest.raises(TooLarge):
        ask(plain(server), [POST])


@pytest.mark.parametrize(
    "told",
    ["Sun, 22 Nov 2026 06:00:00 -0000", "Sun, 22 Nov 2026 06:00:00 +" + "9" * 30, "soon"],
)
def test_a_date_that_tells_no_moment_is_none(told: str) -> None:
    answer = GOOD.replace(b"\r\n\r\n", f"\r\ndate: {told}\r\n\r\n".encode())
    with serving(answer) as server, closing(HttpLine(sender(plain(server)))) as line:
        assert line.send_once(POST) == b"ok"
        assert line.date is None


def test_a_server_that_says_nothing_is_waited_for_no_longer_than_asked(ask: Ask) -> None:
    call = Call(method="GET", path="v1/x", read_s=0.2)
    with socket.create_server(("127.0.0.1", 0)) as deaf, pytest.raises(Unreachable) as why:
        ask(Address(url=f"http://127.0.0.1:{deaf.getsockname()[1]}", token=Secret("t")), [call])
    assert why.value.params == {"why": "timeout"}


def test_a_door_that_is_shut_is_told(ask: Ask) -> None:
    with serving() as server:
        pass
    with pytest.raises(Unreachable) as why:
        ask(plain(server), [POST])
    assert why.value.params == {"why": "refused"}


def test_a_name_without_an_address_is_told() -> None:
    error = httpcore2.ConnectError("no address")
    error.__cause__ = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    assert error_from(error).params == {"why": "address"}
    error.__cause__ = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    assert error_from(error).params == {"why": "name_server"}
    error.__cause__ = OSError(errno.EHOSTUNREACH, "No route to host")
    assert error_from(error).params == {"why": "EHOSTUNREACH"}
    assert error_from(httpcore2.ConnectError("no way")).params == {"why": "connection"}


def test_whom_nobody_vouches_for_is_told_nothing(ask: Ask, tmp_path: Path) -> None:
    shown, believed = tmp_path / "shown", tmp_path / "believed"
    for folder in (shown, believed):
        folder.mkdir()
    with serving(GOOD, tls=certificates(shown)) as server, pytest.raises(Unreachable) as why:
        ask(safe(server, certificates(believed)), [POST])
    assert why.value.code == "broker.tls"
    assert server.read == []


def test_an_early_answer_to_a_body_that_is_not_taken_is_heard(ask: Ask) -> None:
    """Kills: an error of writing in place of what the server said before it closed."""
    refusal = b"HTTP/1.1 413 Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    with serving(refusal) as server:
        assert ask(plain(server), [Call(method="PUT", path="x", body=bytes(8 << 20))]) == [b""]


def test_a_long_body_arrives_whole(ask: Ask, tmp_path: Path) -> None:
    tls = certificates(tmp_path)
    body = bytes(range(256)) * 4096
    received = bytearray()

    class Reader(Server):
        def _talk(self, line: socket.socket) -> None:
            while not received.endswith(body):
                received.extend(line.recv(1 << 16))
            line.sendall(GOOD)

    with closing(Reader([], tls)) as server:
        assert ask(safe(server, tls), [Call(method="PUT", path="x", body=body)]) == [b"ok"]


def test_a_poll_that_is_broken_off_leaves_no_answer_for_the_next(tmp_path: Path) -> None:
    """Kills: keeping the connection of a cancelled request."""
    tls = certificates(tmp_path)

    async def main(address: Address) -> bytes:
        line = async_sender(address)
        with anyio.move_on_after(0.2):
            await line.answer(POST)
        body = (await line.answer(POST))[1]
        await line.aclose()
        return body

    class Late(Server):
        def _talk(self, line: socket.socket) -> None:
            if self.connections > 1:
                super()._talk(line)
            else:
                while line.recv(1 << 16):
                    pass

    with closing(Late([GOOD], tls)) as server:
        assert anyio.run(main, safe(server, tls)) == b"ok"
    assert server.connections == 2


class SlowSite(Server):
    """Answers what is accepted only when it may; says when each has come."""

    def __init__(self) -> None:
        self.released, self.begun = threading.Event(), threading.Semaphore(0)
        super().__init__([])

    def _talk(self, line: socket.socket) -> None:
        while data := line.recv(1 << 16):
            if b"/accept" in data:
                self.begun.release()
                assert self.released.wait(60)
            line.sendall(GOOD.replace(b"ok", b"{}"))


def test_no_more_than_eight_messages_are_under_way_and_a_poll_is_none_of_them() -> None:
    """Kills: a connection to the broker for each of many jobs that end at once."""

    async def begins(number: int) -> None:
        for _ in range(number):
            assert await anyio.to_thread.run_sync(lambda: server.begun.acquire(timeout=60))

    async def main(address: Address) -> None:
        async with HttpsMailbox(address, "ins_1") as mailbox, anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(mailbox.accept, Hold(f"job_{number}", 1))
            await begins(8)
            for _ in range(3):  # the loop has had every chance to send a ninth
                await mailbox.poll(free=0, holds=(), cancelling=(), wait_s=0)
            assert not server.begun.acquire(blocking=False)
            server.released.set()
            await begins(12)

    with closing(SlowSite()) as server:
        anyio.run(main, plain(server))
    assert server.connections == 9


class Row:
    """A connection of which only its state is known."""

    def __init__(self) -> None:
        self.expired = False
        self.available = True

    def is_available(self) -> bool:
        return self.available

    def has_expired(self) -> bool:
        return self.expired


def test_the_connection_used_last_is_taken_first_and_old_ones_go_one_by_one() -> None:
    """Kills: connections of a burst that are kept, dead, for ever; one lent twice."""
    idle: Idle[Row] = Idle()
    rows = [Row() for _ in range(4)]
    for row in rows:
        idle.leave(row)
    assert idle.take() is rows[3]
    rows[0].expired = rows[2].expired = True
    idle.leave(rows[3])
    assert list(idle.spent()) == [rows[0]]
    assert [idle.take(), idle.take(), idle.take()] == [rows[3], rows[1], None]
    assert list(idle.spent()) == [rows[2]]
    rows[1].available = False  # it broke
    idle.leave(rows[1])
    assert list(idle.every()) == [rows[1]]
    assert idle.take() is None


def test_a_refused_token_is_read_anew_before_the_next_request_and_only_then(
    ask: Ask, tmp_path: Path
) -> None:
    """Kills: the old token for ever, a file that is read at every request."""
    refusal = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n"
    read: list[str] = []

    def again() -> Secret:
        read.append("once")
        if len(read) == 1:
            raise ConfigError("token.file_missing")  # it is being replaced
        return Secret("new")

    tls = certificates(tmp_path)
    with serving(refusal, refusal, GOOD, GOOD, tls=tls) as server:
        address = Address(
            url=f"https://127.0.0.1:{server.port}",
            token=Secret("old"),
            token_again=again,
            ca_file=tls.ca,
        )
        ask(address, [Call(method="GET", path="x")] * 4)
        shown = [b"Bearer new" in request for request in server.read]
    assert (shown, read) == ([False, False, True, True], ["once", "once"])


def test_a_server_that_speaks_no_tls_is_told(ask: Ask, tmp_path: Path) -> None:
    with serving(GOOD) as server, pytest.raises(Unreachable) as why:
        ask(safe(server, certificates(tmp_path)), [POST])
    assert (why.value.code, why.value.params) == ("broker.unreachable", {"why": "tls"})
