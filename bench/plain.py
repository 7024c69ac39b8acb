"""The plain ways to bring a file to another place, to be measured beside ours."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from bench.process import Server
from bench.world import World
from tests.sshd import Sshd, ordinary_user

_SECONDS = 3600.0


@dataclass(slots=True)
class Plain:
    """rsync over ssh, curl to a bare server, base64 in JSON. Each returns the seconds it took."""

    sshd: Sshd
    ssh_config: Path
    sink: Server
    port: int
    copies: int = 0

    def rsync(self, *sources: Path) -> float:
        """Copy each of ``sources`` to a new place over ssh, all at once."""
        begun = time.perf_counter()
        self._copied(sources)
        return self._cleared(time.perf_counter() - begun)

    def relayed(self, source: Path) -> float:
        """Copy ``source`` to one place over ssh, and on to another, as by a host between."""
        begun = time.perf_counter()
        self._copied([source])
        self._copied([self._files / str(self.copies) / source.name])
        return self._cleared(time.perf_counter() - begun)

    @property
    def _files(self) -> Path:
        return self.sshd.open_place / "files"

    def _copied(self, sources: Sequence[Path]) -> None:
        running = [subprocess.Popen(self._argv(source)) for source in sources]
        if any(copy.wait(_SECONDS) for copy in running):
            raise SystemExit("rsync failed")

    def _cleared(self, took: float) -> float:
        shutil.rmtree(self._files)
        self.prepare()
        return took

    def _argv(self, source: Path) -> Sequence[str]:
        self.copies += 1
        to = f"far:{self._files}/{self.copies}/"
        return ("rsync", "-a", "-e", f"ssh -F {self.ssh_config}", str(source), to)

    def prepare(self) -> None:
        """Make the place where copies go."""
        self._files.mkdir()
        shutil.chown(self._files, self.sshd.user)

    def curl(self, file: Path) -> float:
        """Stream ``file`` to the bare server."""
        begun = time.perf_counter()
        url = f"http://127.0.0.1:{self.port}/file"
        subprocess.run(["curl", "-sSf", "-T", str(file), url], check=True, timeout=_SECONDS)
        return time.perf_counter() - begun

    def base64(self, file: Path) -> float:
        """Send ``file`` as text in one JSON body."""
        begun = time.perf_counter()
        body = json.dumps({"content": base64.b64encode(file.read_bytes()).decode()})
        line = HTTPConnection("127.0.0.1", self.port, timeout=_SECONDS)
        line.request("POST", "/json", body)
        if line.getresponse().status != 200:
            raise SystemExit("the bare server failed")
        line.close()
        return time.perf_counter() - begun


@contextmanager
def plain(here: World) -> Iterator[Plain]:
    """Start what the plain ways need at the other end."""
    sshd = Sshd(here.root / "sshd", ordinary_user())
    sshd.prepare()
    sshd.trust()
    config = here.root / "ssh.conf"
    config.write_text(sshd.alias("far"))
    sshd.start()
    try:
        sink = here.start_module("bench.sink", str(here.root), pipes=True)
        made = Plain(sshd, config, sink, int(sink.line(20)))
        made.prepare()
        yield made
    finally:
        sshd.stop()
        shutil.rmtree(sshd.open_place, ignore_errors=True)
