"""Commands as a person types them, and the two servers, each a real process that is ended by id."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sysconfig
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from examples.demo.screen import Screen

COMMAND_SECONDS = 60.0
STOP_SECONDS = 20.0
_KEPT = ("TMPDIR", "TZ")


class DemoFault(Exception):
    """A step did not do what it must."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that came to its end."""

    status: int
    out: str
    err: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Person:
    """Whose command line it is: the name on the screen, and where they sit."""

    name: str
    home: Path


class Shell:
    """Runs and shows command lines; owns every process that it started."""

    def __init__(self, screen: Screen, lang: str) -> None:
        self._screen = screen
        self._environ = _environment(lang)
        self._servers: list[subprocess.Popen[bytes]] = []
        self._turn = threading.Lock()
        self._closed = False

    def run(
        self,
        who: Person,
        argv: Sequence[str],
        *,
        expect: int | None = 0,
        hidden: Sequence[str] = (),
    ) -> Ended:
        """Show and run a command, and return how it ended; DemoFault when not with ``expect``.

        The words ``hidden``, which were shown before, become an ellipsis on the screen.
        """
        self._screen.command(who.name, _shown(argv, hidden))
        begun = time.monotonic()
        try:
            done = subprocess.run(
                argv,
                cwd=who.home,
                env=self._environ | {"HOME": str(who.home)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=COMMAND_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise DemoFault(f"{shlex.join(argv)}: not done in {error.timeout:g} s") from error
        out, err = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
        if expect is not None and done.returncode != expect:
            raise DemoFault(f"{shlex.join(argv)}: status {done.returncode}\n{out}{err}".rstrip())
        return Ended(done.returncode, out, err, time.monotonic() - begun)

    def start(self, who: Person, argv: Sequence[str], log: Path) -> int:
        """Show and start a server whose output goes to the file ``log``; return its process id.

        In a thread, which no signal interrupts: whatever was started is known to `stop`, also when
        a signal comes before the thread is waited for.
        """
        self._screen.command(who.name, f"{shlex.join(argv)} &")
        with ThreadPoolExecutor(1) as starter:
            return starter.submit(self._begin, who, argv, log).result()

    def _begin(self, who: Person, argv: Sequence[str], log: Path) -> int:
        with self._turn, log.open("wb") as file:
            if self._closed:
                raise DemoFault("closed")
            server = subprocess.Popen(
                argv,
                cwd=who.home,
                env=self._environ | {"HOME": str(who.home)},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._servers.append(server)
        return server.pid

    def give(self, **environ: str) -> None:
        """Let every later command see these variables."""
        self._environ |= environ

    def alive(self, pid: int) -> bool:
        return any(s.pid == pid and s.poll() is None for s in self._servers)

    def stop(self) -> list[int]:
        """End what was started, last first, as a person would; return how each one ended."""
        with self._turn:
            servers = self._servers[::-1]
        statuses = [_ended(server) for server in servers]
        self._servers.clear()
        return statuses

    def close(self) -> None:
        """End what was started; nothing more is."""
        with self._turn:
            self._closed = True
        self.stop()


def _shown(argv: Sequence[str], hidden: Sequence[str]) -> str:
    line = shlex.join(argv)
    return line.replace(shlex.join(hidden), "…") if hidden else line


def _ended(server: subprocess.Popen[bytes]) -> int:
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
    return server.wait(STOP_SECONDS)


def _environment(lang: str) -> dict[str, str]:
    """Return an environment in which no setting, proxy or file of the user's counts."""
    environ = {name: os.environ[name] for name in _KEPT if name in os.environ}
    environ["LC_ALL"] = "ja_JP.UTF-8" if lang == "ja" else "C.UTF-8"
    path = os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)))
    return environ | {"PATH": path, "PYTHONUTF8": "1"}
