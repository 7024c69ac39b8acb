"""A bare site for tests: a real sshd, a real rsync, programs, and a client's settings for it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sekisho.adapters.patience import OnPause
from sekisho.client.client import Client
from sekisho.compose.client import client
from sekisho.compose.push import ssh_host
from sekisho.config.client import load_client
from sekisho.transfer.progress import Progress, unseen
from tests.forked import Forked
from tests.sshd import Sshd, put, remove, serving
from tests.wire import Wire, wire

SITE = "far"


@dataclass
class BareWorld:
    """One site and one place to submit from. Another one is another state and other sockets."""

    place: Path
    server: Sshd
    line: Wire
    programs: dict[str, list[str]] = field(default_factory=dict)
    runtime: Path = Path()
    extra: str = ""
    base_text: str = ""  #: as the settings name it; empty: below the place

    @property
    def base(self) -> Path:
        return self.place / "base"

    @property
    def config(self) -> Path:
        return self.place / "client.toml"

    def program(self, name: str, text: str, *words: str) -> None:
        """Install a shell script at the site and agree on it as a command."""
        file = self.place / f"{name}.sh"
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
        self.programs[name] = [str(file), *words]

    def settle(self) -> None:
        """Write the client's files."""
        port = f"  Port {self.server.port}\n"
        text = self.server.alias(SITE).replace(port, f"  Port {self.line.port}\n")
        known = f"  UserKnownHostsFile {self.server.place}/known_hosts\n"
        text = text.replace(known, f"{known}  HostKeyAlias [127.0.0.1]:{self.server.port}\n")
        put(self.place / "ssh_config", text)  # a changed one is another connection
        lines = [f"{name} = {list(map(str, argv))!r}" for name, argv in self.programs.items()]
        put(
            self.config,
            f'[site.{SITE}]\nmode = "ssh"\nkind = "bare"\nhost = "{SITE}"\n'
            f'ssh_config = "ssh_config"\nbase = "{self.base_text or self.base}"\n'
            f"logins_per_minute = 600\n"
            f"{self.extra}\n[site.{SITE}.program]\n" + "\n".join(lines).replace("'", '"') + "\n",
        )

    def environ(self, state: str = "state") -> dict[str, str]:
        return {
            **os.environ,
            "XDG_STATE_HOME": str(self.place / state),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "SEKISHO_CONFIG": str(self.config),
            "LC_ALL": "C.UTF-8",
        }

    @contextmanager
    def client(
        self,
        state: str = "state",
        on_bring: Progress = unseen,
        on_pause: OnPause = lambda _error, _seconds: None,
    ) -> Iterator[Client]:
        """Give a client of this process with the state of a submitting host."""
        self.settle()
        with (
            _environment(self.environ(state)),
            client(self.config, on_bring=on_bring, on_pause=on_pause) as here,
        ):
            yield here

    def sekisho(self, *words: str, state: str = "state") -> Forked:
        """Start the command line as a user would."""
        self.settle()
        pipe = subprocess.PIPE
        return Forked(words, env=self.environ(state), stdout=pipe, stderr=pipe, cwd=self.place)

    def disconnect(self) -> None:
        with _environment(self.environ()):
            files = load_client(self.config)
            ssh_host(files.settings.site[SITE], files, SITE).disconnect()

    def job_directory(self, job_id: str) -> Path:
        return self.base / job_id


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def bare_world(
    place: Path, lines: Sequence[str] = (), within: Sequence[str] = ()
) -> Iterator[BareWorld]:
    runtime = Path(tempfile.mkdtemp(prefix="sk-"))  # short: sockets are below
    try:
        with (
            serving(place / "sshd", lines=lines, within=within) as server,
            wire(server.port) as line,
        ):
            world = BareWorld(place, server, line, runtime=runtime)
            world.settle()
            try:
                yield world
            finally:
                world.disconnect()
    finally:
        remove(runtime)
