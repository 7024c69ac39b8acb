"""A broker with TLS and one site's agent, as processes in a directory that goes when they do.

Set up by the command lines that people type; `World.crowd` alone makes its many sites through the
services behind them, because five thousand command lines would take an hour.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import ssl
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any, Final

from bench.process import BenchFault, Server, free_port
from examples.demo.certificate import make_certificates
from examples.demo.places import REPOSITORY
from sekisho.compose.broker import desk
from sekisho.config.broker import load_broker
from sekisho.domain.access import Principal, Role
from sekisho.domain.ids import ENTROPY_BYTES, make_id
from sekisho.domain.token import ENTROPY_BYTES as TOKEN_BYTES
from sekisho.domain.token import hash_token, make_token
from sekisho.wire.v1 import JoinSite

SITE: Final = "bench"
USER: Final = "bench"
NOTHING: Final = "nothing"
COPY: Final = "copy"
_COMMAND_SECONDS: Final = 120.0
_READY_SECONDS: Final = 60.0
#: A site's agent is held back by the modes of files; root is not, with all of its capabilities.
_ORDINARY: Final = (
    ("setpriv", "--inh-caps=-all", "--bounding-set=-all") if os.geteuid() == 0 else ()
)
_PROXY: Final = """\
Port {port}
Listen 127.0.0.1
Allow 127.0.0.1
ConnectPort {broker}
Timeout 600
MaxClients 50
LogLevel Warning
"""
#: A command that does nothing, and one that copies its input to its output.
_MANIFEST: Final = f"""\
schema = 1
site = "{SITE}"
submitters = ["{USER}"]
max_running = 1000

[[command]]
name = "{NOTHING}"
argv = ["/bin/true"]
time_limit_s = 60
max_running = 1000

[[command]]
name = "{COPY}"
argv = ["/bin/cp", "in.txt", "out.txt"]
time_limit_s = 60
max_running = 1000

[[command.input]]
path = "in.txt"

[[command.output]]
path = "out.txt"
required = true
"""


@dataclass(frozen=True, slots=True)
class Member:
    """One site of a crowd: its name, its agent's instance, its agent's token."""

    site: str
    instance: str
    token: str


class World:
    """The three directories, the two servers, and who speaks to them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.broker_dir, self.site_dir, self.user_dir = (
            root / name for name in ("broker", "site", "workflow")
        )
        self.config = self.user_dir / ".config" / "sekisho" / "client.toml"
        self.ca = self.user_dir / "broker-ca.pem"
        self.servers: list[Server] = []

    def environ(self, home: Path) -> dict[str, str]:
        """Return an environment in which no setting, proxy or file of the user's counts."""
        path = os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)))
        return {"HOME": str(home), "PATH": path, "LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"}

    def run(self, home: Path, *words: str) -> str:
        """Run ``sekisho words…`` at ``home`` and return what it prints."""
        done = subprocess.run(
            ("sekisho", *words),
            cwd=home,
            env=self.environ(home),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_COMMAND_SECONDS,
            check=False,
            text=True,
        )
        if done.returncode != 0:
            raise BenchFault(f"sekisho {' '.join(words)}\n{done.stdout}{done.stderr}")
        return done.stdout

    def start(self, home: Path, argv: Sequence[str], name: str) -> Server:
        """Start a server of this world; it ends with the world."""
        log = home / f"{name}.log"
        return self._own(Server(argv, cwd=home, env=self.environ(home), log=log))

    def start_module(self, name: str, *words: str, pipes: bool = False) -> Server:
        """Start a program of the benchmark's own; it ends with the world."""
        argv = (sys.executable, "-m", name, *words)
        log = self.root / f"{name}-{len(self.servers)}.log"
        env = self.environ(self.root)
        return self._own(Server(argv, cwd=REPOSITORY, env=env, log=log, pipes=pipes))

    def certify(self) -> None:
        """Make the directories, the broker's certificate, and what the others trust it by."""
        for place in (self.broker_dir, self.site_dir, self.user_dir):
            place.mkdir(mode=0o700)
        make_certificates(self.broker_dir, (self.site_dir, self.user_dir))

    def set_up(self) -> None:
        """Make everybody's files; nothing runs yet."""
        self.certify()
        tls = ("--tls-cert", "server.pem", "--tls-key", "server.key")
        self.run(self.broker_dir, "broker", "init", ".", "--port", str(self.port), *tls)
        invitation = self._broker("site", "add", SITE, "--user", USER)
        self._private(self.site_dir / "invitation", invitation)
        self._broker("token", "create", "--role", "submitter", "--user", USER, "--to", "user.token")
        self._broker("token", "create", "--role", "admin", "--user", "operator", "--to", "admin")
        token = (self.broker_dir / "user.token").read_text("ascii")
        self._private(self.user_dir / "token", token)
        where = ("--broker", self.url, "--ca", "broker-ca.pem")
        self.run(self.user_dir, "client", "init", *where, "--token-file", "token")
        self.run(self.site_dir, "site", "init", "--dir", ".", "--site", SITE, *where)
        (self.site_dir / "manifest.toml").write_text(_MANIFEST, encoding="utf-8")

    def serve(self) -> Server:
        """Start the broker and return it when it answers."""
        argv = ("sekisho", "broker", "serve", "-c", "broker.toml")
        server = self.start(self.broker_dir, argv, "broker")
        server.wait_until(self._answers, _READY_SECONDS)
        return server

    def start_agent(self) -> Server:
        """Let the site join, start its agent, and return it when it polls."""
        self.run(self.site_dir, "site", "join", "--dir", ".", "--invitation-file", "invitation")
        return self.restart_agent()

    def restart_agent(self, *before: str, **settings: str) -> Server:
        """Start the agent of a site that has joined, with ``settings`` of its environment.

        It is started as an argument of ``before``.
        """
        given = (f"SEKISHO_{name.upper()}={value}" for name, value in settings.items())
        argv = (*before, "env", *given, *_ORDINARY, "sekisho", "agent", "--dir", ".")
        server = self.start(self.site_dir, argv, "agent")
        server.wait_until(lambda: self.polling() > 0, _READY_SECONDS)
        return server

    def start_proxy(self) -> tuple[Server, str]:
        """Start tinyproxy, which connects to the broker and to nothing else; return its URL."""
        port = free_port()
        text = _PROXY.format(port=port, broker=self.port)
        (self.root / "proxy.conf").write_text(text, encoding="ascii")
        server = self.start(self.root, ("tinyproxy", "-d", "-c", "proxy.conf"), "proxy")
        server.wait_until(lambda: _takes(port), _READY_SECONDS)
        return server, f"http://127.0.0.1:{port}"

    def crowd(self, number: int) -> list[Member]:
        """Add ``number`` sites that serve our user, each joined, each with a token of its own."""
        members = []
        with desk(load_broker(self.broker_dir / "broker.toml")) as services:
            for n in range(number):
                site, instance = f"crowd-{n}", _instance()
                services.sites.add(site, frozenset({USER}))
                invitation, _ = services.tokens.invite(site)
                secret = make_token(Role.SITE, secrets.token_bytes(TOKEN_BYTES)).reveal()
                invited = Principal(token_id=invitation.id, role=Role.INVITATION, name=site)
                joining = JoinSite(instance=instance, token_hash=hash_token(secret))
                services.tokens.join(invited, joining)
                members.append(Member(site, instance, secret))
        return members

    def polling(self) -> int:
        """Return how many long polls the broker holds now."""
        status, body = self._get("/v1/admin/status", self._as_operator())
        told: dict[str, Any] = json.loads(body) if status == 200 else {}
        return int(told.get("polling", 0))

    def metrics(self) -> str:
        """Return the broker's figures as it tells them."""
        return self._get("/metrics", self._as_operator())[1].decode()

    def stop(self) -> None:
        """End every server, last first."""
        while self.servers:
            self.servers.pop().stop()

    def _as_operator(self) -> dict[str, str]:
        token = (self.broker_dir / "admin").read_text("ascii").strip()
        return {"Authorization": f"Bearer {token}"}

    def _own(self, server: Server) -> Server:
        self.servers.append(server)
        return server

    def _answers(self) -> bool:
        try:
            return self._get("/health/ready", {})[0] == 200
        except (ConnectionError, HTTPException):
            return False

    def _get(self, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        trust = ssl.create_default_context(cafile=self.ca)
        line = HTTPSConnection("127.0.0.1", self.port, context=trust, timeout=30)
        try:
            line.request("GET", path, headers=headers)
            answer = line.getresponse()
            return answer.status, answer.read()
        finally:
            line.close()

    def _broker(self, *words: str) -> str:
        return self.run(self.broker_dir, "broker", *words, "-c", "broker.toml")

    @staticmethod
    def _private(path: Path, text: str) -> None:
        path.touch(mode=0o600)
        path.write_text(text, encoding="ascii")


def _takes(port: int) -> bool:
    """Say whether something takes connections at ``port``."""
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


def _instance() -> str:
    entropy = secrets.token_bytes(ENTROPY_BYTES)
    return make_id("ins", at_ms=time.time_ns() // 1_000_000, entropy=entropy)


@contextmanager
def world() -> Iterator[World]:
    """Give a world that is set up; whatever it started is ended with it."""
    with tempfile.TemporaryDirectory(prefix="sekisho-bench-") as directory:
        made = World(Path(directory))
        try:
            made.set_up()
            yield made
        finally:
            made.stop()
