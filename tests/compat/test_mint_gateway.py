"""A gateway before the broker: nginx checks the old tokens, names the user, and shows a path."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.compat.old_programs import LISTED, SETTINGS, House, OldAgent, OldWorkflow, a_house, said

PATH = "/gateway"
#: Tokens that only the gateway knows, each with its user.
OLD_TOKENS = {"old-token-of-tanaka": "tanaka", "old-token-of-suzuki": "suzuki"}
GATEWAY = """
[gateway]
user_header = "X-Authenticated-User"
addresses = ["{address}"]
"""
NGINX = """\
daemon off; master_process off; pid {home}/pid; error_log {home}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {home}/b; proxy_temp_path {home}/p; fastcgi_temp_path {home}/f;
  uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
  map $http_authorization $user {{
    default "";
{tokens}
  }}
  server {{
    listen 127.0.0.1:{port};
    client_max_body_size 0;
    location {path}/ {{
      if ($user = "") {{ return 403 '{{"errors":[{{"code":"0005","message":"no"}}]}}'; }}
      proxy_set_header Authorization "";
      proxy_set_header X-Authenticated-User $user;
      proxy_bind {source};
      proxy_pass http://127.0.0.1:{broker};
    }}
  }}
}}
"""


def settings(address: str) -> str:
    return SETTINGS + GATEWAY.format(address=address)


@contextmanager
def gateway(home: Path, broker: int, source: str = "127.0.0.1") -> Iterator[str]:
    """Run nginx as the gateway, which calls the broker from ``source``; give its address."""
    home.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    tokens = "".join(f'    "Bearer {token}" {user};\n' for token, user in OLD_TOKENS.items())
    text = NGINX.format(
        home=home, port=port, broker=broker, path=PATH, tokens=tokens, source=source
    )
    (home / "nginx.conf").write_text(text)
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")
    assert program is not None
    server = subprocess.Popen([program, "-p", home, "-c", home / "nginx.conf"])
    try:
        until = time.monotonic() + 60
        while not listens(port):
            assert time.monotonic() < until
        yield f"http://127.0.0.1:{port}{PATH}"
    finally:
        server.terminate()
        server.wait(20)


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return False
    return True


def line_of(url: str, token: str) -> httpx2.Client:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx2.Client(base_url=f"{url}/mi-distcomp-api/", headers=headers, timeout=60)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = a_house(tmp_path_factory.mktemp("house"), settings("127.0.0.2"))
    text = made.config.read_text()
    made.config.write_text(text.replace('# prefix = "/sekisho"', f'prefix = "{PATH}"'))
    with made.serving() as serving:
        yield serving


@pytest.fixture(scope="module")
def url(house: House) -> Iterator[str]:
    with gateway(house.place / "nginx", house.broker.port, "127.0.0.2") as url:
        yield url


def test_old_programs_with_old_tokens_pass_the_gateway(url: str, tmp_path: Path) -> None:
    with line_of(url, "old-token-of-tanaka") as line:
        workflow, agent = OldWorkflow(line), OldAgent(line, tmp_path / "calc")
        accept_id = workflow.ready(files={"in.txt": b"42"}, results=["out.txt"])
        assert agent.work("cp in.txt out.txt")
        assert agent.runs == [LISTED]
        assert workflow.result(accept_id)["out.txt"]["content"] == "NDI="


def test_the_user_whom_the_gateway_names_is_the_user(url: str, tmp_path: Path) -> None:
    with line_of(url, "old-token-of-tanaka") as tanaka, line_of(url, "old-token-of-suzuki") as line:
        accept_id = OldWorkflow(tanaka).ready()
        assert not OldWorkflow(line).known(accept_id)
        assert OldAgent(line, tmp_path).ask() is None
        header = {"X-Authenticated-User": "tanaka"}  # nginx puts its own in its place
        asked = line.get("calc-status", params={"accept_id": accept_id}, headers=header)
        assert said(asked) == (200, 400)
        OldWorkflow(tanaka).cancel(accept_id, delete="force")


def test_a_bad_token_is_answered_by_whoever_finds_it_bad(house: House, url: str) -> None:
    with line_of(url, "nonsense") as line:
        assert said(line.get("calc-request")) == (403, "0005")
    with line_of(house.url + PATH, "nonsense") as line:
        answer = line.get("calc-request")
        assert said(answer) == (403, "0005")
        message = answer.json()["errors"][0]["message"]
        assert message == "/mi-distcomp-api/calc-requestへの実行権がありません。"


def test_the_header_counts_only_from_the_gateways_address(house: House) -> None:
    """Here the call comes from 127.0.0.1, which is not listed: the positive control is above."""
    headers = {"X-Authenticated-User": "tanaka", "X-Forwarded-For": "127.0.0.2"}
    with httpx2.Client(base_url=house.url + "/mi-distcomp-api/", headers=headers) as line:
        asked = line.get("calc-request", params={"site_id": "old-site"})
        assert said(asked) == (403, "0005")
    with house.line() as line:  # and a token of our own goes on being one
        asked = line.get("calc-request", params={"site_id": "old-site"})
        assert said(asked) == (200, "0300")
