"""A whole house for the command line: a broker with TLS, a site with its agent, a user's settings.

All of it real processes, started once for a worker and stopped with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.forked import Forked, run

SITE = "tohoku"
USER = "alice"
READY_SECONDS = 30
CALL_SECONDS = 180  # a check of a site takes 30 s where nothing else is at work

MANIFEST = """\
schema = 1
site = "{site}"
submitters = ["{user}"]
max_running = 8

[[command]]
name = "copy"
argv = ["/bin/cp", "-R", "in", "out"]
time_limit_s = 60
max_running = 8
[[command.input]]
path = "in/**"
max_bytes = "64 MiB"
required = false
[[command.output]]
path = "out/**"
max_bytes = "64 MiB"
max_files = 1000

[[command]]
name = "say"
argv = ["/bin/sh", "-c", "echo said $1; echo warned >&2; exit $2", "say", "{{text}}", "{{code}}"]
time_limit_s = 60
max_running = 8
[command.parameters]
text = {{ type = "text", pattern = "[a-z ]*", default = "nothing" }}
code = {{ type = "integer", minimum = 0, maximum = 255, default = 0 }}
[command.stdout]
release = true

[[command]]
name = "crowd"
argv = ["/bin/sh", "-c", '''
mkdir {gate}.in.$$ && ls -d {gate}.in.* | wc -l >> {gate}.crowd; sleep 0.2; rmdir {gate}.in.$$''']
time_limit_s = 60
max_running = 3

[[command]]
name = "die"
argv = ["/bin/sh", "-c", "kill -9 $$"]
time_limit_s = 60

[[command]]
name = "gate"
argv = ["/bin/sh", "-c", "echo run >> {gate}.count; cat {gate} > passed.txt"]
time_limit_s = 60
max_running = 8
[[command.output]]
path = "passed.txt"
"""


@dataclass
class Ended:
    """How a call of the command line ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class House:
    """Where everything is, and how to call the command line as the user."""

    home: Path
    url: str
    ca: Path
    token: str
    config: Path
    environ: dict[str, str]
    gate: Path
    asides: list[subprocess.Popen[str] | Forked] = field(default_factory=list)

    def call(self, *words: str | Path, cwd: Path | None = None, **environ: str) -> Ended:
        env = self.environ | environ
        done = run(words, cwd=cwd or self.home, env=env, timeout=CALL_SECONDS)
        assert self.token not in done.stdout + done.stderr
        return Ended(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str | Path, cwd: Path) -> Forked:
        pipe = subprocess.PIPE
        process = Forked(words, cwd=cwd, env=self.environ, stdout=pipe, stderr=pipe)
        self.asides.append(process)
        return process

    def open_gate(self, text: str = "open") -> None:
        """Let one command `gate` pass; returns when it has been running and took the text."""
        self.gate.write_text(text)

    def starts(self) -> int:
        """How often the command `gate` was started."""
        count = Path(f"{self.gate}.count")
        return len(count.read_text().splitlines()) if count.exists() else 0


class Service:
    """A process that serves, whose log tells when it is ready."""

    def __init__(self, words: Sequence[str | Path], environ: dict[str, str]) -> None:
        self._lines: queue.Queue[str] = queue.Queue()
        pipe, same = subprocess.PIPE, subprocess.STDOUT
        self._process = Forked(words, env=environ, stdout=pipe, stderr=same)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as log:
            for line in log:
                self._lines.put(line)
        self._lines.put("")

    def ready(self, event: str) -> dict[str, Any]:
        seen = []
        while line := self._lines.get(timeout=READY_SECONDS):
            seen.append(line)
            if event in line:
                found: dict[str, Any] = json.loads(line)
                return found
        raise AssertionError("ended before it was ready:\n" + "".join(seen))

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(20)


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    home = tmp_path_factory.mktemp("house")
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8"}
    environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(home / "ca.pem")
    server = authority.issue_cert("127.0.0.1")
    server.private_key_pem.write_to_path(home / "key.pem")
    server.cert_chain_pems[0].write_to_path(home / "cert.pem")
    services: list[Service] = []
    try:
        port, token = _broker(home, environ, services)
        url = f"https://127.0.0.1:{port}"
        gate = _site(home, environ, services, url)
        config = _client(home, environ, url)
        environ["SEKISHO_CONFIG"] = str(config)
        made = House(home, url, home / "ca.pem", token, config, environ, gate)
        yield made
        for process in made.asides:
            _ended(process)
    finally:
        _let_all_pass(home / "gate")
        for service in reversed(services):
            service.stop()


def _broker(home: Path, environ: dict[str, str], services: list[Service]) -> tuple[int, str]:
    data = home / "broker"
    tls = ("--tls-cert", home / "cert.pem", "--tls-key", home / "key.pem")
    _type(environ, "broker", "init", data, "--port", "0", *tls)
    settings = ("-c", data / "broker.toml")
    invitation = home / "invitation"
    invitation.touch(0o600)
    invitation.write_text(_type(environ, "broker", "site", "add", SITE, "--user", USER, *settings))
    words = ("broker", "token", "create", "--role", "submitter", "--user", USER)
    _type(environ, *words, "--to", home / "token", *settings)
    services.append(Service(["broker", "serve", *settings], environ))
    port = int(services[-1].ready("broker_ready")["port"])
    return port, (home / "token").read_text().strip()


def _site(home: Path, environ: dict[str, str], services: list[Service], url: str) -> Path:
    place, gate = home / "site", home / "gate"
    os.mkfifo(gate)
    where = ("--dir", place)
    joined = ("--site", SITE, "--user", USER, "--broker", url, "--ca", home / "ca.pem")
    _type(environ, "site", "init", *where, *joined)
    (place / "manifest.toml").write_text(MANIFEST.format(site=SITE, user=USER, gate=gate))
    _type(environ, "site", "join", *where, "--invitation-file", home / "invitation")
    services.append(Service(["agent", *where], environ))
    services[-1].ready("agent_started")
    return gate


def _client(home: Path, environ: dict[str, str], url: str) -> Path:
    config = home / "client" / "client.toml"
    words = ("--broker", url, "--token-file", home / "token", "--ca", home / "ca.pem")
    _type(environ, "--config", config, "client", "init", *words)
    return config


def _type(environ: dict[str, str], *words: str | Path) -> str:
    done = run(words, env=environ, timeout=CALL_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _let_all_pass(gate: Path) -> None:
    """Let commands that still wait at the gate end, so that nothing outlives the tests."""
    with contextlib.suppress(OSError):
        os.close(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))


def _ended(process: subprocess.Popen[str] | Forked) -> None:
    if process.poll() is None:
        process.kill()
    process.wait(20)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
