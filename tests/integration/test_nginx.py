"""A whole job of 30 MiB through nginx as it is delivered: 1 MiB of body, 60 s, everything buffered.

TLS ends at nginx and the broker stands below a path. The configuration has one line about the
broker; what deploy/ ships on top of that only spares a disk.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from examples.demo.certificate import make_certificates
from sekisho.domain.limits import MIB
from tests.faults.trio import Trio, a_trio, make_template
from tests.proxy import HOST

CONFIG = """\
daemon off; master_process off; pid {home}/pid; error_log {home}/error.log;
events {{ worker_connections 256; }}
http {{
  log_format told '$request_method $uri $status $request_length';
  access_log {home}/access.log told;
  client_body_temp_path {home}/b; proxy_temp_path {home}/p; fastcgi_temp_path {home}/f;
  uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
  server {{
    listen {host}:{port} ssl;
    ssl_certificate {home}/server.pem; ssl_certificate_key {home}/server.key;
    location /sekisho/ {{ proxy_pass http://{host}:{broker}; }}
  }}
}}
"""


#: Gives back as much as came, but none of it as it came: nothing is there already.
TURN = "mkdir out && tr '\\000-\\377' '\\001-\\377\\000' < in/given > out/turned"


@contextmanager
def nginx(home: Path, broker: int) -> Iterator[int]:
    """Run nginx in front of a broker; give its port."""
    home.mkdir()
    make_certificates(home, (home,))
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
    config = home / "nginx.conf"
    config.write_text(CONFIG.format(home=home, host=HOST, port=port, broker=broker))
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")
    assert program is not None
    server = subprocess.Popen([program, "-p", home, "-c", config])
    try:
        yield port
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture
def trio(tmp_path: Path) -> Iterator[Trio]:
    make_template(tmp_path / "template")
    with a_trio(tmp_path / "template", tmp_path / "trio") as made:
        yield made


def test_thirty_mebibytes_go_in_and_out_through_nginx_as_delivered(trio: Trio) -> None:
    given = trio.some_input(30 * MIB)
    (trio.home / "work.sh").write_text(TURN)
    config = trio.broker_config
    config.write_text(config.read_text().replace("# prefix =", "prefix ="))
    trio.start_broker()
    with nginx(trio.home / "nginx", trio.proxy.upstream) as port:
        ca = trio.home / "nginx" / "broker-ca.pem"
        trio.point_at(f"https://{HOST}:{port}/sekisho", ca)
        trio.start_agent()
        with trio.connect() as client:
            job = client.submit(trio.spec("one", source=given))
            result = job.result(trio.home / "got", timeout=120)
        assert result.state == "succeeded"
        turned = given.read_bytes().translate(bytes([*range(1, 256), 0]))
        assert (trio.home / "got/out/turned").read_bytes() == turned
        trio.agent.kill()
    told = [line.split() for line in (trio.home / "nginx/access.log").read_text().splitlines()]
    answered = [(method, status) for method, _, status, _ in told if status != "499"]
    # 499: the poll of the dead. 413: each line tries a longer part once on each connection
    assert 1 <= answered.count(("PUT", "413")) <= 4
    assert {status for _, status in answered} <= {"200", "201", "204", "413"}
    assert len([1 for method, _ in answered if method == "PUT"]) >= 60
