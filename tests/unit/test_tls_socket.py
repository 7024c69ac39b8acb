"""Reading TLS in more than one record at a time."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from examples.demo.certificate import make_certificates
from sekisho.adapters.http_client import trust
from sekisho.adapters.tls_socket import WideSocket

RECORD = 16 << 10


@contextmanager
def line(
    home: Path,
    sent: bytes,
    *,
    orderly: bool = True,
    room: int = 0,
) -> Iterator[WideSocket]:
    """Give the near end of a connection whose far end has sent all it has to say."""
    make_certificates(home, (home,))
    far_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    far_context.load_cert_chain(home / "server.pem", home / "server.key")
    context = trust(home / "broker-ca.pem")
    assert isinstance(context, ssl.SSLContext)
    near, far = socket.socketpair()
    if room:
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
    near.settimeout(30)
    far.settimeout(30)
    said = threading.Event()

    def say() -> None:
        with far_context.wrap_socket(far, server_side=True) as ours:
            ours.sendall(sent)
            said.set()
            if orderly:
                ours.unwrap()

    speaker = threading.Thread(target=say, daemon=True)
    speaker.start()
    with context.wrap_socket(near, server_hostname="localhost") as opened:
        assert isinstance(opened, WideSocket)
        assert said.wait(30)
        yield opened
    speaker.join(30)


def test_what_has_arrived_is_returned_at_once_and_whole(tmp_path: Path) -> None:
    sent = os.urandom(6 * RECORD)
    with line(tmp_path, sent) as near:
        assert near.recv(4 * RECORD) == sent
        assert near.recv(1 << 20) == b""
        near.unwrap()


def test_one_read_does_not_bring_more_than_somebody_must_hold(tmp_path: Path) -> None:
    sent = os.urandom(20 * RECORD)
    with line(tmp_path, sent, room=1 << 20) as near:
        first = near.recv(4 * RECORD)
        assert first == sent[: 16 * RECORD]
        assert first + near.recv(4 * RECORD) == sent
        near.unwrap()


def test_whoever_asks_for_little_gets_no_more(tmp_path: Path) -> None:
    with line(tmp_path, b"hello" + bytes(RECORD)) as near:
        assert [near.recv(2), near.recv(3)] == [b"he", b"llo"]
        assert near.recv(4 * RECORD) == bytes(RECORD - 5)  # the rest of a record
        assert near.recv(3) == bytes(3)
        assert near.recv(1000) == bytes(2)
        near.unwrap()


@pytest.mark.parametrize("size", [0, 1, RECORD - 1, RECORD, RECORD + 1, 3 * RECORD + 7])
def test_no_byte_is_lost_whatever_the_size_of_a_read(tmp_path: Path, size: int) -> None:
    sent = os.urandom(size)
    with line(tmp_path, sent) as near:
        got = b"".join(iter(lambda: near.recv(RECORD + 100), b""))
        assert got == sent
        assert near.gettimeout() == 30
        near.unwrap()


def test_silence_after_a_whole_record_is_not_an_error(tmp_path: Path) -> None:
    with line(tmp_path, os.urandom(RECORD), orderly=False) as near:
        assert len(near.recv(1 << 20)) == RECORD
        assert near.gettimeout() == 30
