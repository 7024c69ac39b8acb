"""Broker, agent and users are killed at random for a while; then everybody comes back.

Invariants: every submission reaches exactly one end; nothing is started twice; a result is the same
bytes whenever it is fetched; nothing is left running; the site's log verifies. What is drawn is
printed and can be drawn again, and longer: SEKISHO_CHAOS_SEED, SEKISHO_CHAOS_SECONDS.
"""

from __future__ import annotations

import os
import random
import secrets
import subprocess
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sekisho.api import new_job_id
from tests.faults.program import SECONDS
from tests.faults.trio import SITE, TERMINAL, Trio
from tests.forked import Forked

CHAOS_SECONDS = float(os.environ.get("SEKISHO_CHAOS_SECONDS", "20"))
AT_ONCE = 4
FEWEST = 30


@dataclass
class User:
    """A command line that submits one job; killed, it is typed again with the same id."""

    trio: Trio
    key: str
    pause: str
    given: Path
    job: str = field(default_factory=new_job_id)
    process: Forked | None = None

    @property
    def into(self) -> Path:
        return self.trio.home / "got" / self.key

    @property
    def there(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def done(self) -> bool:
        return self.process is not None and self.process.poll() == 0

    def run(self) -> None:
        parameters = ("-p", f"key={self.key}", "-p", f"pause={self.pause}", "-o", "out/**")
        words: list[str | Path] = [
            "--config",
            self.trio.client_config,
            "run",
            SITE,
            "work",
            "--id",
            self.job,
        ]
        words += [*parameters, "-i", f"in/given={self.given}", "--into", self.into, "--quiet"]
        null = subprocess.DEVNULL
        self.process = Forked(words, env=self.trio.environ, stdout=null, stderr=null)

    def wait(self) -> None:
        if self.process is not None:
            self.process.wait(2 * SECONDS)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(SECONDS)


@dataclass
class Crowd:
    """Users, some of them at work at a time, and what befalls them and the programs they use."""

    trio: Trio
    dice: random.Random
    users: list[User] = field(default_factory=list)
    deaths: Counter[str] = field(default_factory=Counter)

    def newcomer(self) -> User:
        number = len(self.users)
        given = self.trio.home / f"given-{number}"
        given.write_bytes(self.dice.randbytes(self.dice.choice((10, 5_000, 600_000))))
        user = User(self.trio, f"user-{number}", f"0.{self.dice.randrange(1, 8)}", given)
        self.users.append(user)
        return user

    def keep_busy(self) -> None:
        waiting = [user for user in self.users if not (user.there or user.done)]
        for _ in range(AT_ONCE - sum(user.there for user in self.users)):
            (waiting.pop() if waiting else self.newcomer()).run()

    def strike(self) -> None:
        """Kill somebody; programs are started again at once, users by `keep_busy`."""
        victim = self.dice.choice(("broker", "agent", "user"))
        self.deaths[victim] += 1
        match victim:
            case "broker":
                self.trio.broker.kill()
                self.trio.start_broker()
            case "agent":
                self.trio.agent.kill()
                self.trio.start_agent()
            case _:
                self.dice.choice(self.users).kill()

    def finish(self) -> None:
        """Let everybody come to an end in peace, and enough of them."""
        while len(self.users) < FEWEST:
            self.newcomer()
        for user in self.users:
            while sum(other.there for other in self.users) >= AT_ONCE:
                next(other for other in self.users if other.there).wait()
            if not (user.there or user.done):
                user.run()
        for user in self.users:
            user.wait()


@pytest.mark.time_limit(CHAOS_SECONDS + 600)
def test_whoever_dies_no_job_is_lost_doubled_or_forgotten(trio: Trio) -> None:
    seed = int(os.environ.get("SEKISHO_CHAOS_SEED") or secrets.randbits(32))
    print(f"SEKISHO_CHAOS_SEED={seed} SEKISHO_CHAOS_SECONDS={CHAOS_SECONDS}")  # noqa: T201
    crowd = Crowd(trio, random.Random(seed))
    end = time.monotonic() + CHAOS_SECONDS
    breath = threading.Event()  # never set: it gives the others time
    try:
        while time.monotonic() < end:
            crowd.keep_busy()
            breath.wait(crowd.dice.uniform(0.2, 0.8))
            crowd.strike()
        crowd.finish()
    finally:
        for user in crowd.users:
            user.kill()
    print(crowd.deaths)  # noqa: T201
    look_back(trio, crowd)
    assert trio.agent.stop() == 0
    assert left_running(trio) == []


def look_back(trio: Trio, crowd: Crowd) -> None:
    assert [user.key for user in crowd.users if not user.done] == []
    states = trio.states()
    assert {states[user.job] for user in crowd.users} == {"succeeded"}
    assert trio.starts() == {user.key: 1 for user in crowd.users}
    with trio.connect() as client:
        for user in crowd.users:
            assert (user.into / "out/in/given").read_bytes() == user.given.read_bytes()
            again = trio.home / "again" / user.key
            client.job(user.job).fetch(again)
            assert contents(again) == contents(user.into)
            assert len([s for s in trio.changes(user.job) if s in TERMINAL]) <= 1
    assert trio.log_of(crowd.users[0].job).count("started") == 1


def contents(folder: Path) -> dict[Path, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {file.relative_to(folder): file.read_bytes() for file in files}


def left_running(trio: Trio) -> list[str]:
    """Return the command lines of what still runs for the site when its agent has ended."""
    mine = f"{trio.home}/".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (process / "cmdline").read_bytes()
            if mine in command + bytes((process / "cwd").readlink()) and b"broker" not in command:
                found.append(command.decode().replace("\0", " "))
    return found
