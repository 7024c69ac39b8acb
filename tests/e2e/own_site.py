"""A site of the test's own at a real broker: everything is typed as its people would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.e2e.conftest import CALL_SECONDS, Ended
from tests.forked import Forked, run
from tests.integration.bad_network import an_authority
from tests.integration.http_process import broker_process

SECONDS: Final = 40
USER: Final = "tanaka"
COMMANDS: Final = """
[[command]]
name = "gate"
argv = ["/bin/sh", "-c", "echo run >> {gate}.count; cat {gate} > passed.txt"]
time_limit_s = 600
max_running = 4
[[command.output]]
path = "passed.txt"
"""


@dataclass
class Hall:
    """A broker with TLS, and the people around it."""

    home: Path
    url: str
    config: Path
    environ: dict[str, str]
    _sites: int = 0

    @property
    def ca(self) -> Path:
        return self.home / "ca.pem"

    def call(self, *words: str | Path, given: str = "", **environ: str) -> Ended:
        done = run(words, env=self.environ | environ, given=given, timeout=CALL_SECONDS)
        return Ended(done.returncode, done.stdout, done.stderr)

    def must(self, *words: str | Path, given: str = "") -> str:
        done = self.call(*words, given=given)
        assert done.status == 0, done.out + done.err
        return done.out

    def invite(self) -> tuple[str, Path]:
        """Add a site; return its name and the file of its invitation."""
        self._sites += 1
        name = f"site-{self._sites}"
        text = self.must("broker", "site", "add", name, "--user", USER, "-c", self.config)
        file = self.home / f"{name}.invitation"
        file.touch(0o600)
        file.write_text(text)
        return name, file

    def joined(self, *, commands: str = COMMANDS) -> Place:
        """Make a site that has joined, and has the commands hello and gate."""
        name, invitation = self.invite()
        place = Place(self, name, self.home / name)
        os.mkfifo(place.gate)
        words = ("--broker", self.url, "--ca", self.ca)
        self.must("site", "init", "--dir", place.home, *words)
        self.must("site", "join", "--dir", place.home, "--invitation-file", invitation)
        manifest = place.home / "manifest.toml"
        manifest.write_text(manifest.read_text() + commands.format(gate=place.gate))
        return place


@dataclass
class Place:
    """One site, and what its people and its submitter type."""

    hall: Hall
    name: str
    home: Path

    @property
    def gate(self) -> Path:
        return self.hall.home / f"{self.name}.gate"

    def site(self, verb: str, *words: str | Path, **environ: str) -> Ended:
        return self.hall.call("site", verb, "--dir", self.home, *words, **environ)

    def json(self, verb: str, *words: str | Path) -> Any:
        done = self.site(verb, "--json", *words)
        assert done.status == 0, done.err
        return done.json

    def submit(self, command: str, *words: str | Path) -> str:
        return self.hall.must("submit", self.name, command, *words).strip()

    def wait(self, job: str) -> Ended:
        into = self.home.with_suffix(".results")
        return self.hall.call("wait", job, "--into", into, "--json")

    def run(self, command: str, *words: str | Path) -> Ended:
        into = self.home.with_suffix(".results")
        return self.hall.call("run", self.name, command, "--into", into, "--json", *words)

    def starts(self) -> int:
        count = Path(f"{self.gate}.count")
        return len(count.read_text().splitlines()) if count.exists() else 0

    @contextmanager
    def agent(self, **environ: str) -> Iterator[Agent]:
        """Run the site's agent until the end of the block."""
        with self.beside("agent", **environ) as agent:
            agent.says("agent_started")
            yield agent

    @contextmanager
    def beside(self, *words: str, **environ: str) -> Iterator[Agent]:
        """Run a command about this site until the end of the block."""
        process = Forked(
            [*words, "--dir", self.home],
            env=self.hall.environ | environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        agent = Agent(process)
        reader = threading.Thread(target=agent.read)
        reader.start()
        try:
            yield agent
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(SECONDS)
            reader.join(SECONDS)


@dataclass
class Agent:
    """A running agent (or another command), and what it has said so far."""

    process: Forked
    lines: list[str] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as said:
            for line in said:
                with self._changed:
                    self.lines.append(line)
                    self._changed.notify_all()

    def says(self, *words: str) -> str:
        """Return the first line in which all of ``words`` occur, waiting for it."""
        return self.when(lambda line: all(word in line for word in words), words)

    def when(self, claim: Callable[[str], bool], what: object) -> str:
        with self._changed:
            found = self._changed.wait_for(lambda: any(map(claim, self.lines)), SECONDS)
            assert found, (what, self.lines)
            return next(line for line in self.lines if claim(line))

    def event(self, name: str, **facts: object) -> dict[str, Any]:
        """Return the first event of this name with these facts, waiting for it."""

        def claim(line: str) -> bool:
            if not line.startswith("{"):
                return False
            told: dict[str, Any] = json.loads(line)
            return told.get("event") == name and facts.items() <= told.items()

        found: dict[str, Any] = json.loads(self.when(claim, (name, facts)))
        return found

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def status(self) -> int:
        return self.process.wait(SECONDS)


@contextmanager
def a_hall(home: Path, environ: dict[str, str]) -> Iterator[Hall]:
    """Run a broker until the end of the block, with a submitter's settings beside it."""
    leaf = an_authority(home).ca.issue_cert("127.0.0.1")
    leaf.cert_chain_pems[0].write_to_path(home / "cert.pem")
    leaf.private_key_pem.write_to_path(home / "key.pem")
    hall = Hall(home, "", home / "broker" / "broker.toml", environ)
    tls = ("--tls-cert", home / "cert.pem", "--tls-key", home / "key.pem")
    hall.must("broker", "init", home / "broker", "--port", "0", *tls)
    words = ("--role", "submitter", "--user", USER, "--to", home / "token")
    hall.must("broker", "token", "create", *words, "-c", hall.config)
    with broker_process(hall.config) as broker:
        hall.url = f"https://127.0.0.1:{broker.port}"
        config = home / "client.toml"
        settings = ("--broker", hall.url, "--token-file", home / "token", "--ca", hall.ca)
        hall.must("--config", config, "client", "init", *settings)
        environ["SEKISHO_CONFIG"] = str(config)
        yield hall
