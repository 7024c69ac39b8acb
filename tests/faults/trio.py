"""A broker, a site's agent and a user, real processes that break while others look.

The user and the agent reach the broker through the test's own proxy, whose address stays while the
broker behind it comes and goes. Every start of the site's command is one line of the witness file,
synced before the command does anything: what it counts is what really ran.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sekisho.api import Client, JobSpec, connect
from sekisho.cli.main import run
from tests.faults.program import Program, call, clean_environ
from tests.proxy import HOST, Proxy, proxy

SITE: Final = "tohoku"
USER: Final = "alice"
NOWHERE: Final = f"http://{HOST}:9"
TERMINAL: Final = frozenset({"succeeded", "failed", "refused", "cancelled", "expired", "lost"})
WHOLE_LIFE: Final = ["draft", "queued", "offered", "accepted", "running", "returning", "succeeded"]

#: Says that it was started, waits as told, and gives its input back with its key.
WORK: Final = """\
printf '%s\\n' "$1" >> {home}/witness && sync {home}/witness || exit 99
case $2 in gate) read -r opened < {home}/gate ;; *) sleep "$2" ;; esac
mkdir out && {{ [ ! -e in ] || cp -R in out/ ; }} && printf '%s' "$1" > out/key
echo "said $1"
"""
MANIFEST: Final = """\
schema = 1
site = "tohoku"
submitters = ["alice"]
max_running = 16

[[command]]
name = "work"
argv = ["/bin/sh", "{home}/work.sh", "{{key}}", "{{pause}}"]
time_limit_s = 300
max_running = 16
[command.parameters]
key = {{ type = "text", pattern = "[a-z0-9-]+" }}
pause = {{ type = "text", pattern = "gate|[0-9]([.][0-9]+)?", default = "0" }}
[[command.input]]
path = "in/**"
max_bytes = "128 MiB"
required = false
[[command.output]]
path = "out/**"
max_bytes = "128 MiB"
max_files = 100
[command.stdout]
release = true
"""


def make_template(home: Path) -> None:
    """Set up broker, site and user once, as people do; every trio is a copy."""
    data, place = home / "broker", home / "site"
    config = ("-c", data / "broker.toml")
    typed("broker", "init", data, "--port", "0")
    private(home / "invitation", typed("broker", "site", "add", SITE, "--user", USER, *config))
    for role, name, file in (("submitter", USER, "token"), ("admin", "root", "admin")):
        who = ("--role", role, "--user", name)
        typed("broker", "token", "create", *who, "--to", home / file, *config)
    broker = Program(home / "broker.log")
    broker.start(["broker", "serve", *config], clean_environ(home))
    try:
        url = f"http://{HOST}:{broker.event('broker_ready')['port']}"
        joined = ("--site", SITE, "--user", USER, "--broker", url)
        typed("site", "init", "--dir", place, *joined)
        typed("site", "join", "--dir", place, "--invitation-file", home / "invitation")
    finally:
        broker.stop()
    settings = home / "client" / "client.toml"
    reach = ("--broker", url, "--token-file", home / "token")
    typed("--config", settings, "client", "init", *reach)


def typed(*words: str | Path) -> str:
    """Run one command line in this very process, which is quicker; return what it printed."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert run([str(word) for word in words]) == 0
    return out.getvalue()


def private(file: Path, text: str) -> Path:
    """Make a file for its owner only."""
    file.touch(0o600)
    file.write_text(text)
    return file


@dataclass
class Trio:
    """One broker, one agent and one user's settings below ``home``."""

    home: Path
    proxy: Proxy
    environ: dict[str, str]
    broker: Program = field(init=False)
    agent: Program = field(init=False)

    def __post_init__(self) -> None:
        self.broker = Program(self.home / "broker.log")
        self.agent = Program(self.home / "agent.log")

    @property
    def broker_config(self) -> Path:
        return self.home / "broker" / "broker.toml"

    @property
    def site(self) -> Path:
        return self.home / "site"

    @property
    def client_config(self) -> Path:
        return self.home / "client" / "client.toml"

    def start_broker(self, *before: str, **environ: str) -> None:
        """Start the broker and lead the proxy to it when it is ready."""
        start = len(self.broker.lines)
        words = ("broker", "serve", "-c", self.broker_config)
        self.broker.start(words, self.environ | environ, before)
        self.proxy.upstream = int(self.broker.event("broker_ready", start=start)["port"])

    def held(self) -> dict[str, bool]:
        """Return of the site's jobs whether it says that a batch system holds them."""
        told, _ = call(self.environ, "site", "jobs", "--dir", self.site, "--json")
        return {row["job"]: row["held"] for row in json.loads(told)}

    def live_broker(self, **environ: str) -> None:
        """Start a broker that may die at any moment, even before it is ready."""
        start = len(self.broker.lines)
        words = ("broker", "serve", "-c", self.broker_config)
        self.broker.start(words, self.environ | environ)
        ready = self.broker.eventually(lambda: self.broker.find("broker_ready", start))
        if ready:
            self.proxy.upstream = int(ready["port"])

    def start_agent(self, *before: str, first: str = "", **environ: str) -> None:
        start = len(self.agent.lines)
        self.agent.start(("agent", "--dir", self.site), self.environ | environ, before, first)
        self.agent.event("agent_started", start=start)

    def point_at(self, url: str, ca: Path | None = None) -> None:
        """Write ``url``, and who vouches for it, into the settings of site and user."""
        line = f'url = "{url}"' if ca is None else f'url = "{url}"\nca_file = "{ca}"'
        for file in (self.site / "agent.toml", self.client_config):
            file.write_text(re.sub(r'(?m)^url = ".*"$', line, file.read_text()))

    def connect(self) -> Client:
        return connect(self.client_config)

    def spec(self, key: str, pause: str = "0", source: Path | None = None) -> JobSpec:
        """Return the job that starts as ``key`` and gives ``source`` back."""
        return JobSpec(
            site=SITE,
            command="work",
            parameters={"key": key, "pause": pause},
            inputs={} if source is None else {"in/given": source},
            outputs=["out/**"],
        )

    def some_input(self, size: int = 700_000) -> Path:
        """Return a file of two chunks, different for every trio."""
        file = self.home / "given"
        if not file.exists():
            file.write_bytes(os.urandom(size))
        return file

    def open_gate(self) -> None:
        """Let one command pass that waits; returns when it has."""
        (self.home / "gate").write_text("open\n")

    def starts(self) -> Counter[str]:
        """Return how often each key was started."""
        file = self.home / "witness"
        return Counter(file.read_text().split()) if file.exists() else Counter()

    def changes(self, job: str) -> list[str]:
        """Return the states that the broker said the job came into, all its lives together."""
        lines = [line for line in self.broker.lines if line.get("event") == "job_changed"]
        return [line["state"] for line in lines if line["job"] == job]

    def life(self, job: str, last: str = "succeeded") -> list[str]:
        """Return the same when the broker has said that the job came into its ``last`` state."""
        self.broker.event("job_changed", job=job, state=last)
        return self.changes(job)

    def states(self) -> dict[str, str]:
        """Return every job's state, as it stands in the broker's database."""
        file = next((self.home / "broker").glob("*.sqlite3"))
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
            return dict(database.execute("select id, state from jobs"))

    def let_offers_end(self) -> None:
        """Make it later for every offer that stands: its time is over now."""
        file = next((self.home / "broker").glob("*.sqlite3"))
        with closing(sqlite3.connect(file, timeout=30)) as database, database:
            database.execute("update jobs set offer_until = created_at where state = 'offered'")

    def log_of(self, job: str) -> list[str]:
        """Return the kinds of what the site's log says of the job; the log must verify."""
        verified = call(self.environ, "site", "log", "--dir", self.site, "--verify")
        assert verified
        asked = ("site", "log", "--dir", self.site, "--job", job)
        out, said = call(self.environ, *asked, status=None)
        assert not said or "site.no_such_job" in said
        return [line.split()[1] for line in out.splitlines()]

    def end(self) -> None:
        """End everybody; a command that still waits at the gate is let go."""
        self.agent.kill()
        self.broker.kill()
        with contextlib.suppress(OSError):  # nobody waits there
            os.close(os.open(self.home / "gate", os.O_WRONLY | os.O_NONBLOCK))


@contextmanager
def a_trio(template: Path, home: Path) -> Iterator[Trio]:
    """Give a copy of ``template`` below ``home`` with nothing running yet."""
    shutil.copytree(template, home, dirs_exist_ok=True)
    with proxy() as line:
        trio = Trio(home, line, clean_environ(home))
        trio.point_at(f"http://{HOST}:{line.port}")
        client = trio.client_config
        client.write_text(client.read_text().replace(str(template), str(home)))
        (home / "work.sh").write_text(WORK.format(home=home))
        os.mkfifo(home / "gate")
        (trio.site / "manifest.toml").write_text(MANIFEST.format(home=home))
        try:
            yield trio
        finally:
            trio.end()
