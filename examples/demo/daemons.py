"""Servers of a throw-away set-up: children in the foreground, so each can be killed and awaited."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

WAIT_S: Final = 60.0


class Daemons:
    """Children by name; what each says goes to a file below ``base``.

    ``environment`` is all that they know besides PATH; ``logs`` says where they tell more.
    """

    def __init__(self, base: Path, environment: Mapping[str, str], logs: str) -> None:
        self._base = base
        self._environment = environment
        self._logs = logs
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._children

    def __iter__(self) -> Iterator[str]:
        """Give the names, youngest first."""
        return iter(list(reversed(self._children)))

    def start(self, name: str, *argv: str | Path) -> None:
        with (self._base / f"{name}.out").open("ab") as out:
            self._children[name] = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={"PATH": os.environ["PATH"], **self._environment},
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """End one at once, as by a power cut, and wait until it is gone."""
        child = self._children.pop(name)
        child.kill()
        child.wait()

    def stop(self, *names: str, within_s: float = WAIT_S) -> None:
        """Ask these to end, all at once; kill those that take too long."""
        for name in names:
            self._children[name].terminate()
        for name in names:
            try:
                self._children[name].wait(within_s)
            except subprocess.TimeoutExpired:
                self._children[name].kill()
                self._children[name].wait()
            del self._children[name]

    def until(self, claim: Callable[[], object], what: str) -> None:
        """Return when ``claim`` holds.

        Raises: TimeoutError with the ends of the daemons' logs when it does not come to hold.
        """
        end = time.monotonic() + WAIT_S
        while not claim():
            if time.monotonic() > end:
                said = "".join(log.read_text()[-2000:] for log in self._base.rglob(self._logs))
                raise TimeoutError(f"no {what}: {said}")
            time.sleep(0.05)
