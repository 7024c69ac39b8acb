"""nginx as it is delivered, in front of a broker: TLS ends there, and 1 MiB is the longest body."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from examples.demo.certificate import make_certificates
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
    location {path} {{ proxy_pass {scheme}://{host}:{broker}; }}
  }}
}}
"""


@contextmanager
def nginx(
    home: Path, broker: int, *, scheme: str = "http", path: str = "/sekisho/"
) -> Iterator[int]:
    """Run nginx in front of a broker; give its port."""
    home.mkdir()
    make_certificates(home, (home,))
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
    config = home / "nginx.conf"
    config.write_text(
        CONFIG.format(home=home, host=HOST, port=port, broker=broker, scheme=scheme, path=path)
    )
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")
    assert program is not None
    server = subprocess.Popen([program, "-p", home, "-c", config])
    try:
        yield port
    finally:
        server.terminate()
        server.wait(20)
