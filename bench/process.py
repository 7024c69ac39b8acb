"""Processes that a benchmark starts: each is known by its id, is looked at, and is ended by it."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

STOP_SECONDS: Final = 20.0
_LOOK_SECONDS: Final = 0.05
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_KIB: Final = 1024


class BenchFault(Exception):
    """Something did not start, or did not do what it must: there is nothing to measure."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a process holds of the machine's memory, in bytes."""

    rss: int
    pss: int


class Server:
    """A process that runs in the background; its output goes to the file ``log``."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        log: Path,
        pipes: bool = False,
    ) -> None:
        self._log = log
        pipe = subprocess.PIPE if pipes else None
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                argv,
                cwd=cwd,
                env=env,
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=pipe or file,
                stderr=file,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def line(self, seconds: float) -> bytes:
        """Return the next line that it prints; raise BenchFault when none comes in time."""
        pipe = self._process.stdout
        if pipe is None or not select.select([pipe], [], [], seconds)[0]:
            raise BenchFault(f"{self._process.args!r}: nothing came\n{self.logged()}")
        return pipe.readline()

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Return when ``ready``; raise BenchFault with the log when it ends before, or too late."""
        until = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > until or self._process.poll() is not None:
                raise BenchFault(f"{self._process.args!r}\n{self.logged()}")
            time.sleep(_LOOK_SECONDS)

    def logged(self) -> str:
        return self._log.read_text("utf-8", "replace")

    def memory(self) -> Memory:
        """Return what it, with its worker processes, holds now."""
        held = [_memory(pid) for pid in _family(self.pid)]
        return Memory(rss=sum(one.rss for one in held), pss=sum(one.pss for one in held))

    def cpu_seconds(self) -> float:
        """Return the time that it, with its workers, has computed so far, on all cores."""
        return sum(_cpu_seconds(pid) for pid in _family(self.pid))

    def stop(self) -> None:
        """Ask it to end, and end it when it does not."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def _family(pid: int) -> list[int]:
    """Return ``pid`` and the living processes below it."""
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    return [pid, *(one for child in below for one in _family(int(child)))]


def _memory(pid: int) -> Memory:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
    fields = {line.split(":")[0]: line.split()[1] for line in text.splitlines()[1:]}
    return Memory(rss=int(fields["Rss"]) * _KIB, pss=int(fields["Pss"]) * _KIB)


def _cpu_seconds(pid: int) -> float:
    stat = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / _TICKS


def raise_open_files() -> int:
    """Let this process, and what it starts, open as many files as the machine permits."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def end_as_interrupted() -> None:
    """From now on end on SIGTERM as on Ctrl+C: with the servers stopped and their files removed."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def free_port() -> int:
    """Return a port of the loopback that nobody listened on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
