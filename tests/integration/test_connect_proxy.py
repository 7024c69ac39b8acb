"""Agent and user behind a proxy that only knows CONNECT, asks who they are, and one port."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from examples.demo.certificate import make_certificates
from sekisho.domain.limits import MIB
from tests.faults.program import call
from tests.faults.trio import SITE, Trio, a_trio, make_template
from tests.proxy import HOST, proxy

LOGIN, PASSWORD = "company", "pass-word-of-the-proxy"
CONFIG = """\
Port {port}
Listen {host}
Allow {host}
BasicAuth {login} {password}
ConnectPort {connect}
Timeout 600
MaxClients 50
LogLevel Info
"""


@contextmanager
def tinyproxy(home: Path, connect: int, port: int = 0) -> Iterator[int]:
    """Run tinyproxy, which lets nobody connect to another port than ``connect``; give its port."""
    with proxy() as place:  # a port that was free a moment ago
        port = port or place.port
    values = {"login": LOGIN, "password": PASSWORD, "home": home, "host": HOST}
    config = home / "tinyproxy.conf"
    config.write_text(CONFIG.format(port=port, connect=connect, **values))
    with (home / "proxy.log").open("wb") as log:
        server = subprocess.Popen(["tinyproxy", "-d", "-c", config], stdout=log, stderr=log)
    try:
        wait_until_open(port, server)
        yield port
    finally:
        server.terminate()
        server.wait(20)


def wait_until_open(port: int, server: subprocess.Popen[bytes]) -> None:
    """Return when the server takes connections: each try waits for the kernel's answer."""
    end = time.monotonic() + 20
    while server.poll() is None and time.monotonic() < end:
        try:
            socket.create_connection((HOST, port), 1).close()
        except ConnectionRefusedError:
            os.sched_yield()
        else:
            return
    raise AssertionError("tinyproxy did not start")


@pytest.fixture
def trio(tmp_path: Path) -> Iterator[Trio]:
    """A trio whose broker speaks TLS, and whose two sides do not know the test's own proxy."""
    make_template(tmp_path / "template")
    with a_trio(tmp_path / "template", tmp_path / "trio") as made:
        make_certificates(made.home, (made.home,))
        config = made.broker_config.read_text()
        for name, file in (("tls_cert", "server.pem"), ("tls_key", "server.key")):
            config = re.sub(f"(?m)^# {name} = .*$", f'{name} = "{made.home / file}"', config)
        made.broker_config.write_text(config)
        made.start_broker()
        made.point_at(f"https://{HOST}:{made.proxy.upstream}", made.home / "broker-ca.pem")
        yield made


def test_both_sides_work_through_connect_with_a_login(trio: Trio) -> None:
    given = trio.some_input(3 * MIB)
    with tinyproxy(trio.home, trio.proxy.upstream) as port:
        trio.environ["https_proxy"] = f"http://{LOGIN}:{PASSWORD}@{HOST}:{port}"
        trio.start_agent()
        out, err = run_one(trio, given)
        trio.agent.kill()
    assert (trio.home / "got/out/in/given").read_bytes() == given.read_bytes()
    log = (trio.home / "proxy.log").read_text()
    asked = re.findall(r"Request \(file descriptor \d+\): CONNECT (\S+)", log)
    assert set(asked) == {f"{HOST}:{trio.proxy.upstream}"}
    assert len(asked) >= 2  # the agent's and the user's
    said = out + err + (trio.home / "agent.log").read_text()
    assert PASSWORD not in said


@pytest.mark.parametrize("lacks", ["the login", "the port"])
def test_what_the_proxy_does_not_let_pass_is_told(trio: Trio, lacks: str) -> None:
    """Kills: a way around the proxy when it says no; asking it again what it has answered."""
    port_let = trio.proxy.upstream if lacks == "the login" else trio.proxy.upstream + 1
    login = "" if lacks == "the login" else f"{LOGIN}:{PASSWORD}@"
    with tinyproxy(trio.home, port_let) as port:
        trio.environ["https_proxy"] = f"http://{login}{HOST}:{port}"
        patient = trio.environ | {"SEKISHO_BROKER__FIRST_CONTACT_S": "3600"}
        _, err = call(patient, "--config", trio.client_config, "client", "check", status=69)
        assert f"error[broker.proxy_{'login' if lacks == 'the login' else 'refused'}]" in err
        out, _ = call(trio.environ, "site", "check", "--quick", "--dir", trio.site, status=1)
        assert "[check.proxy_login]" in out or "[check.proxy_refused]" in out
    assert not trio.states()


def test_a_proxy_that_refuses_is_told_once_and_then_that_the_line_is_back(trio: Trio) -> None:
    """Kills: a line of log for every poll, a day long; silence when it works again."""
    upstream = trio.proxy.upstream
    with tinyproxy(trio.home, upstream + 1) as port:
        trio.environ["https_proxy"] = f"http://{LOGIN}:{PASSWORD}@{HOST}:{port}"
        trio.start_agent(SEKISHO_LOG__LEVEL="debug")
        trio.agent.event("poll_failed", code="broker.proxy_refused", tries=4)
    with tinyproxy(trio.home, upstream, port):
        back = trio.agent.event("connected_again")
        trio.agent.kill()
    told = [line for line in trio.agent.lines if line.get("event") == "poll_failed"]
    assert [line["tries"] for line in told] == list(range(1, len(told) + 1))
    assert [line["level"] for line in told[:4]] == ["warning", "debug", "debug", "debug"]
    assert back["tries"] == len(told) >= 4


def run_one(trio: Trio, given: Path) -> tuple[str, str]:
    words = (
        "-p",
        "key=one",
        "-i",
        f"in/given={given}",
        "-o",
        "out/**",
        "--into",
        trio.home / "got",
    )
    return call(trio.environ, "--config", trio.client_config, "run", SITE, "work", *words)
