"""A real broker: TLS, signals, reload, backup, and one job from submission to result."""

from __future__ import annotations

import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from sekisho.domain.access import Role
from sekisho.domain.token import hash_token, make_token
from sekisho.wire.frames import frame, pack_chunks, pack_digests
from sekisho.wire.v1 import Accept, JoinSite, Poll, PollAnswer, Report, SubmitJob, Verdict
from tests.component.broker_world import AGENT, a_submission
from tests.integration.http_process import (
    BrokerProcess,
    Certificates,
    broker_process,
    certificates,
    failing,
    sekisho,
)
from tests.world import a_chunk

HELD: dict[str, Any] = {"epoch": 1, "instance": AGENT}


@pytest.fixture
def tls(tmp_path: Path) -> Certificates:
    return certificates(tmp_path)


@pytest.fixture
def config(tmp_path: Path, tls: Certificates) -> Path:
    home = tmp_path / "broker"
    files: list[str | Path] = ["--tls-cert", tls.cert, "--tls-key", tls.key]
    sekisho("broker", "init", home, "--port", "0", *files)
    return home / "broker.toml"


@pytest.fixture
def broker(config: Path) -> Iterator[BrokerProcess]:
    with broker_process(config) as running:
        yield running


def client(broker: BrokerProcess, tls: Certificates, token: str = "") -> httpx2.Client:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"https://127.0.0.1:{broker.port}"
    return httpx2.Client(base_url=url, verify=tls.trust, headers=headers, timeout=40)


def a_user(config: Path, role: str = "submitter", user: str = "alice") -> str:
    argv: list[str | Path] = [
        "token",
        "create",
        "--role",
        role,
        "--user",
        user,
        "--show",
        "-c",
        config,
    ]
    return sekisho("broker", *argv)


def a_site(config: Path) -> str:
    return sekisho("broker", "site", "add", "one", "--user", "alice", "-c", config)


def joined(broker: BrokerProcess, tls: Certificates, invitation: str) -> str:
    secret = make_token(Role.SITE, b"s" * 32).reveal()
    message = JoinSite(instance=AGENT, token_hash=hash_token(secret))
    with client(broker, tls, invitation) as http:
        answer = http.post("/v1/site/join", content=msgspec.json.encode(message))
        assert answer.json() == {"site": "one", "submitters": ["alice"]}
    return secret


def test_one_job_goes_the_whole_way(broker: BrokerProcess, tls: Certificates, config: Path) -> None:
    agent_token = joined(broker, tls, a_site(config))
    user_token = a_user(config)
    given, given_data = a_chunk("an input")
    made, made_data = a_chunk("an output")
    message: SubmitJob = a_submission(has_inputs=True)
    mine, theirs = f"/v1/jobs/{message.id}", f"/v1/site/jobs/{message.id}"
    with client(broker, tls, user_token) as user, client(broker, tls, agent_token) as agent:

        def say(path: str, body: object) -> None:
            answer = agent.post(f"{theirs}/{path}", content=msgspec.json.encode(body))
            assert answer.status_code == 200, answer.text

        assert user.post("/v1/jobs", content=msgspec.json.encode(message)).status_code == 201
        wanted = user.post(f"{mine}/chunks/missing", content=pack_chunks([given])).content
        assert wanted == pack_digests([given.digest])
        user.put(f"{mine}/chunks", content=frame(given.digest, given_data))
        assert user.post(f"{mine}/start").json()["state"] == "queued"

        poll = msgspec.json.encode(Poll(instance=AGENT, free=1))
        answer = agent.post("/v1/site/poll", content=poll)
        (offer,) = msgspec.json.decode(answer.content, type=PollAnswer).offers
        assert (offer.job, offer.request) == (message.id, message.request)
        say("accept", Accept(**HELD))
        sent = agent.post(f"{theirs}/chunks/fetch", params=HELD, content=wanted).content
        assert sent == frame(given.digest, given_data)
        say("report", Report(**HELD, steps=["started", "ended"]))
        agent.post(f"{theirs}/chunks/missing", params=HELD, content=pack_chunks([made]))
        agent.put(f"{theirs}/chunks", params=HELD, content=frame(made.digest, made_data))
        say("verdict", Verdict(**HELD, verdict="succeeded", result=b"done", tree="0" * 64))

        view = user.get(mine).json()
        assert (view["state"], view["result"]) == ("succeeded", "ZG9uZQ==")
        fetched = user.post(f"{mine}/chunks/fetch", content=pack_digests([made.digest]))
        assert fetched.content == frame(made.digest, made_data)
        assert user.post(f"{mine}/received").json()["received"] is True
    logged = "".join(broker.text)
    assert user_token not in logged
    assert agent_token not in logged
    states = [line["state"] for line in broker.lines if line["event"] == "job_changed"]
    assert states == ["draft", "queued", "offered", "accepted", "running", "returning", "succeeded"]
    shown = msgspec.json.decode(sekisho("broker", "show", message.id, "--json", "-c", config))
    assert (shown["chunks"], shown["job"]["state"]) == (2, "succeeded")
    assert "result" not in shown["job"]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize(
    ("version", "taken"),
    [
        (ssl.TLSVersion.TLSv1, False),
        (ssl.TLSVersion.TLSv1_1, False),
        (ssl.TLSVersion.TLSv1_2, True),
        (ssl.TLSVersion.TLSv1_3, True),
    ],
)
def test_tls_before_1_2_is_refused(
    broker: BrokerProcess, tls: Certificates, version: ssl.TLSVersion, taken: bool
) -> None:
    tls.trust.set_ciphers("ALL:@SECLEVEL=0")
    tls.trust.minimum_version = tls.trust.maximum_version = version
    shaken = False
    with socket.create_connection(("127.0.0.1", broker.port), 10) as s, suppress(ssl.SSLError):
        tls.trust.wrap_socket(s, server_hostname="127.0.0.1").close()
        shaken = True
    assert shaken is taken


def test_head_and_body_of_an_answer_go_in_one_record(
    broker: BrokerProcess, tls: Certificates
) -> None:
    """Kills: two records, of which a proxy holds the second back until the first is answered."""
    request = b"GET /health/live HTTP/1.1\r\nHost: broker\r\n\r\n"
    with (
        socket.create_connection(("127.0.0.1", broker.port), 40) as there,
        tls.trust.wrap_socket(there, server_hostname="127.0.0.1") as safe,
    ):
        for _ in range(3):
            safe.sendall(request)
            head, _, body = safe.recv(1 << 16).partition(b"\r\n\r\n")  # gives one record
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert body == b"{}"


def test_sigterm_answers_who_waits_and_ends_well(
    broker: BrokerProcess, tls: Certificates, config: Path
) -> None:
    token = joined(broker, tls, a_site(config))
    answers: list[int] = []

    def wait() -> None:
        with client(broker, tls, token) as http:
            poll = msgspec.json.encode(Poll(instance=AGENT, free=1))
            answers.append(http.post("/v1/site/poll", content=poll).status_code)

    waiting = threading.Thread(target=wait)
    waiting.start()
    operator = a_user(config, "admin", "operator")
    with client(broker, tls, operator) as http:
        while http.get("/v1/admin/status").json()["polling"] == 0:
            pass
    assert broker.stop() == 0
    waiting.join(10)
    assert answers == [204]


def test_settings_are_read_again_on_sighup_and_by_an_admin(
    broker: BrokerProcess, tls: Certificates, config: Path
) -> None:
    a_site(config)
    user_token, admin_token = a_user(config), a_user(config, "admin", "operator")
    submit = msgspec.json.encode(a_submission())
    text = config.read_text()
    with client(broker, tls, user_token) as user, client(broker, tls, admin_token) as admin:
        config.write_text(text.replace("# site_jobs = 10000", "site_jobs = 0"))
        sekisho("broker", "reload", "-c", config)
        broker.event("settings_reread")
        assert user.post("/v1/jobs", content=submit).json()["code"] == "quota.jobs"

        config.write_text(text.replace("# site_jobs = 10000", "site_jobs = -1"))
        status, said = failing("broker", "reload", "-c", config)
        assert status == 78
        assert "broker.toml:" in said
        broken = admin.post("/v1/admin/reload")
        assert broken.json()["code"] == "config.invalid"
        assert user.post("/v1/jobs", content=submit).json()["code"] == "quota.jobs"

        config.write_text(text)
        assert admin.post("/v1/admin/reload").status_code == 200
        assert user.post("/v1/jobs", content=submit).status_code == 201


def test_an_exchanged_certificate_is_used_after_a_reload(
    broker: BrokerProcess, tls: Certificates, config: Path, tmp_path: Path
) -> None:
    assert broker.port
    other = certificates(tmp_path)
    sekisho("broker", "reload", "-c", config)
    broker.event("settings_reread")
    with client(broker, other) as http:
        assert http.get("/health/live").status_code == 200
    with client(broker, tls) as http, pytest.raises(httpx2.ConnectError):
        http.get("/health/live")


def test_a_second_broker_on_the_same_data_is_refused(broker: BrokerProcess, config: Path) -> None:
    assert broker.port
    status, said = failing("broker", "serve", "-c", config)
    assert (status, "broker.running" in said) == (73, True)
    assert broker.stop(signal.SIGINT) == 0
    status, said = failing("broker", "reload", "-c", config)
    assert (status, "broker.not_running" in said) == (66, True)


def test_what_was_acknowledged_is_there_after_a_kill(config: Path, tls: Certificates) -> None:
    """P1."""
    a_site(config)
    token = a_user(config)
    message = a_submission()
    with broker_process(config) as first, client(first, tls, token) as http:
        assert http.post("/v1/jobs", content=msgspec.json.encode(message)).status_code == 201
        first.process.kill()
        first.process.wait(10)
    with broker_process(config) as second, client(second, tls, token) as http:
        assert http.get(f"/v1/jobs/{message.id}").json()["state"] == "queued"
        assert http.post("/v1/jobs", content=msgspec.json.encode(message)).status_code == 200


def test_the_service_manager_is_told(config: Path, tmp_path: Path) -> None:
    place = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(place))
        manager.settimeout(20)
        with broker_process(config, {"NOTIFY_SOCKET": str(place)}) as broker:
            heard = [manager.recv(4096) for _ in range(2)]
            assert any(b"READY=1" in message for message in heard)
            assert any(b"WATCHDOG=1" in message for message in heard)
            assert broker.stop() == 0
            assert b"STOPPING=1" in manager.recv(4096)


def test_a_backup_of_a_serving_broker_is_a_broker(
    broker: BrokerProcess, tls: Certificates, config: Path, tmp_path: Path
) -> None:
    a_site(config)
    token = a_user(config)
    message = a_submission(has_inputs=True)
    chunk, data = a_chunk("kept")
    with client(broker, tls, token) as http:
        http.post("/v1/jobs", content=msgspec.json.encode(message))
        base = f"/v1/jobs/{message.id}"
        http.post(f"{base}/chunks/missing", content=pack_chunks([chunk]))
        http.put(f"{base}/chunks", content=frame(chunk.digest, data))
        http.post(f"{base}/start")
    copy = tmp_path / "copy"
    told = msgspec.json.decode(sekisho("broker", "backup", copy, "--json", "-c", config))
    assert told == {"jobs": 1, "chunks": 1, "chunk_bytes": 4}
    assert failing("broker", "backup", copy, "-c", config)[0] == 73
    broker.stop()
    (copy / "broker.toml").write_text(config.read_text())
    with broker_process(copy / "broker.toml") as restored, client(restored, tls, token) as http:
        fetched = http.post(f"{base}/chunks/fetch", content=pack_digests([chunk.digest]))
        assert fetched.content == frame(chunk.digest, data)


def test_an_address_that_is_taken_is_told(config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config.write_text(config.read_text().replace("port = 0", f"port = {port}"))
        status, said = failing("broker", "serve", "-c", config)
    assert (status, "http.address" in said) == (78, True)


def test_a_broker_without_its_database_says_what_to_do(config: Path) -> None:
    (config.parent / "broker.sqlite3").unlink()
    status, said = failing("broker", "serve", "-c", config)
    assert (status, "store.needs_migration" in said) == (78, True)
    sekisho("broker", "migrate", "-c", config)
    assert sekisho("broker", "jobs", "--json", "-c", config) == "[]"


def test_no_secret_is_in_argv_or_environment(
    broker: BrokerProcess, tls: Certificates, config: Path
) -> None:
    token = a_user(config)
    with client(broker, tls, token) as http:
        assert http.get("/v1/jobs").status_code == 200
    for name in ("cmdline", "environ"):
        seen = Path(f"/proc/{broker.process.pid}/{name}").read_bytes()
        assert token.encode() not in seen
