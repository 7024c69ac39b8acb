"""What deploy/ ships works: units are accepted and hardened, nginx and HAProxy pass everything."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx2
import msgspec
import pytest

from sekisho.domain.limits import MAX_PART_BYTES
from sekisho.wire.frames import Chunk, digest_of, frame, pack_chunks
from tests.component.broker_world import a_submission
from tests.integration.http_process import Certificates, broker_process, certificates, sekisho

DEPLOY = Path(__file__).parents[2] / "deploy"
UNIT = DEPLOY / "sekisho-broker.service"


def test_the_unit_is_valid(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    text = UNIT.read_text().replace("/opt/sekisho/bin/sekisho", "/bin/true")
    unit.write_text(text.replace("User=sekisho-broker", "User=daemon"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_is_hardened() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", UNIT],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-400:]


def a_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def program(name: str) -> str:
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    assert found is not None
    return found


@contextmanager
def running(*argv: str | Path) -> Iterator[None]:
    server = subprocess.Popen(argv)
    try:
        yield
    finally:
        server.terminate()
        server.wait(20)


@contextmanager
def nginx(home: Path, tls: Certificates, broker_port: int) -> Iterator[int]:
    """Run nginx with its default limits and the shipped snippet; give its port."""
    port = a_free_port()
    snippet = (DEPLOY / "nginx.conf").read_text().replace(":50080", f":{broker_port}")
    (home / "sekisho.conf").write_text(snippet)
    (home / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {home}/pid; error_log {home}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off; client_body_temp_path {home}/body;\n"
        f"proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/f; uwsgi_temp_path {home}/u;\n"
        f"scgi_temp_path {home}/s;\n"
        f"server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {tls.cert};\n"
        f"ssl_certificate_key {tls.key}; include {home}/sekisho.conf; }} }}\n"
    )
    with running(program("nginx"), "-p", home, "-c", home / "nginx.conf"):
        yield port


@contextmanager
def haproxy(home: Path, tls: Certificates, broker_port: int) -> Iterator[int]:
    """Run HAProxy with the shipped file, of which only certificate and ports are others."""
    port = a_free_port()
    (home / "both.pem").write_bytes(tls.cert.read_bytes() + tls.key.read_bytes())
    config = (DEPLOY / "haproxy.cfg").read_text()
    for before, after in (
        (":50443 ", f"127.0.0.1:{port} "),
        (":50080 ", f":{broker_port} "),
        ("/etc/haproxy/broker.pem", str(home / "both.pem")),
    ):
        assert config.count(before) == 1
        config = config.replace(before, after)
    (home / "haproxy.cfg").write_text(config)
    with running(program("haproxy"), "-db", "-f", home / "haproxy.cfg"):
        yield port


def chunked(tls: Certificates, port: int, token: str, body: bytes) -> tuple[bytes, bytes]:
    """Send a body in chunks with trailers, and one more request behind it; return both answers.

    The trailers claim what only a head may say. Were they taken for one, the next request would be
    let in without its token.
    """
    head = f"host: 127.0.0.1\r\nauthorization: Bearer {token}"
    first = (
        f"POST /sekisho/v1/jobs HTTP/1.1\r\n{head}\r\ntransfer-encoding: chunked\r\n"
        f"trailer: x-checksum\r\n\r\n{len(body):x}\r\n"
    ).encode()
    trailers = f"\r\n0\r\nx-checksum: 1\r\nauthorization: Bearer {token}\r\n\r\n"
    second = "GET /sekisho/v1/jobs HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
    with (
        socket.create_connection(("127.0.0.1", port), 30) as raw,
        tls.trust.wrap_socket(raw, server_hostname="127.0.0.1") as line,
    ):
        line.sendall(first + body + trailers.encode() + second.encode())
        answers = b"".join(iter(lambda: line.recv(65_536), b""))
    one, _, other = answers.partition(b"HTTP/1.1 ")[2].partition(b"HTTP/1.1 ")
    return one, other


Front = Callable[[Path, Certificates, int], AbstractContextManager[int]]


@pytest.mark.parametrize("front", [nginx, haproxy])
def test_a_broker_behind_a_proxy_under_a_path_works(tmp_path: Path, front: Front) -> None:
    """W17: a chunk of the largest part, the long poll, and the caller's true address."""
    tls = certificates(tmp_path)
    home = tmp_path / "broker"
    config = home / "broker.toml"
    sekisho("broker", "init", home, "--port", "0")
    text = config.read_text().replace("# prefix =", "prefix =")
    config.write_text(text.replace("# trusted_proxies =", "trusted_proxies ="))
    sekisho("broker", "site", "add", "one", "--user", "alice", "-c", config)
    argv = ["token", "create", "--role", "submitter", "--user", "alice", "--show"]
    token = sekisho("broker", *argv, "-c", config)
    data = bytes(MAX_PART_BYTES - 36 - (128 << 10))
    chunk = Chunk(digest_of(data), len(data))
    message = a_submission(has_inputs=True)
    with (
        broker_process(config) as broker,
        front(tmp_path, tls, broker.port) as port,
        httpx2.Client(
            base_url=f"https://127.0.0.1:{port}/sekisho",
            verify=tls.trust,
            transport=httpx2.HTTPTransport(verify=tls.trust, retries=5),
            timeout=40,
        ) as http,
    ):
        assert http.get(f"https://127.0.0.1:{port}/health/live").status_code == 404
        checked = httpx2.get(f"http://127.0.0.1:{broker.port}/health/ready", trust_env=False)
        assert checked.status_code == 200  # what HAProxy asks to know whether the broker is up
        assert http.get("v1/jobs").status_code == 401
        assert broker.event("credential_refused")["address"] == "127.0.0.1"
        http.headers["Authorization"] = f"Bearer {token}"
        made = http.post("v1/jobs", content=msgspec.json.encode(message))
        assert made.status_code == 201
        base = f"v1/jobs/{message.id}"
        http.post(f"{base}/chunks/missing", content=pack_chunks([chunk]))
        assert http.put(f"{base}/chunks", content=frame(chunk.digest, data)).status_code == 200
        fetched = http.post(f"{base}/chunks/fetch", content=bytes.fromhex(chunk.digest))
        assert fetched.content == frame(chunk.digest, data)
        waited = http.get(base, params={"version": made.json()["version"], "wait_s": 0.5})
        assert waited.json()["state"] == "draft"
        another = msgspec.json.encode(a_submission())
        made_so, asked = chunked(tls, port, token, another)
        assert made_so.startswith(b"201 ")
        assert asked.startswith(b"401 ")
