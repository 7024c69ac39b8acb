"""A program of ours as a process of its own, that can be killed, frozen and heard."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.forked import AS_TYPED, Forked, run

SECONDS: Final = 40


def clean_environ(home: Path) -> dict[str, str]:
    """Return an environment in which our programs run and nothing of this machine is set."""
    path = os.pathsep.join(sys.path)
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8", "PYTHONPATH": path}


def call(
    environ: Mapping[str, str],
    *words: str | Path,
    status: int | None = 0,
    before: Sequence[str] = (),
    first: str = "",
) -> tuple[str, str]:
    """Run one command line, as an argument of ``before``; return its stdout and stderr.

    ``first``: see `Forked`.
    """
    if before:
        done = subprocess.run(
            [*before, *AS_TYPED, *map(str, words)],
            check=False,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    else:
        done = run(words, env=environ, timeout=SECONDS, first=first)
    assert status in (None, done.returncode), (done.returncode, done.stdout, done.stderr)
    return done.stdout, done.stderr


class Program:
    """A running program, and every line that it has logged, those of its forerunners included."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: subprocess.Popen[bytes] | Forked | None = None
        self._changed = threading.Condition()
        self._reader: threading.Thread | None = None
        self.lines: list[dict[str, Any]] = []

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(
        self,
        words: Sequence[str | Path],
        environ: Mapping[str, str],
        before: Sequence[str] = (),
        first: str = "",
    ) -> None:
        """Start it, ``before`` being what its command line is an argument of; see `Forked`."""
        assert not self.running
        null, pipe = subprocess.DEVNULL, subprocess.PIPE
        if before:
            argv = [*before, *AS_TYPED, *map(str, words)]
            self._process = subprocess.Popen(
                argv, env=dict(environ), stdin=null, stdout=null, stderr=pipe
            )
        else:
            self._process = Forked(
                words, env=environ, stdout=null, stderr=pipe, text=False, first=first
            )
        self._reader = threading.Thread(target=self._read, args=(self._process,))
        self._reader.start()

    def _read(self, process: subprocess.Popen[bytes] | Forked) -> None:
        assert process.stderr is not None
        with process.stderr as stderr, self._log.open("ab") as log:
            for line in stderr:
                log.write(line)
                log.flush()
                with self._changed:
                    self.lines.append(_event(line))
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def event(
        self, name: str, *, start: int = 0, seconds: float = SECONDS, **facts: Any
    ) -> dict[str, Any]:
        """Return the first such event logged from line ``start`` on, waiting for it."""
        self.eventually(lambda: self.find(name, start, **facts), seconds)
        found = self.find(name, start, **facts)
        assert found is not None, (name, facts, self.lines[-10:])
        return found

    def eventually(self, look: Callable[[], Any], seconds: float = SECONDS) -> Any:
        """Return what ``look`` sees as soon as it sees something; it is asked at every event."""
        end = time.monotonic() + seconds
        with self._changed:
            while not (seen := look()) and (left := end - time.monotonic()) > 0:
                if not self.running and self._reader is not None and not self._reader.is_alive():
                    return look()
                self._changed.wait(min(left, 0.1))
        return seen

    def find(self, name: str, start: int = 0, **facts: Any) -> dict[str, Any] | None:
        """Return the first such event logged so far from line ``start`` on."""
        return next(
            (
                line
                for line in self.lines[start:]
                if line.get("event") == name and facts.items() <= line.items()
            ),
            None,
        )

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def ended(self, seconds: float = SECONDS) -> int:
        """Wait for its end; return its status."""
        assert self._process is not None
        status = self._process.wait(seconds)
        if self._reader is not None:
            self._reader.join(seconds)
        return status

    def kill(self) -> None:
        """End it as a power loss would, if it runs."""
        if self.running:
            self.signal(signal.SIGKILL)
        if self._process is not None:
            self.ended()

    def stop(self) -> int:
        """Ask it to end; return its status."""
        self.signal(signal.SIGTERM)
        return self.ended()


def _event(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {"text": line.decode("utf-8", "replace")}
    return found if isinstance(found, dict) else {"text": line.decode()}
