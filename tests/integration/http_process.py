"""A real broker: the command line in a process of its own, with TLS or behind a proxy."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trustme

from tests.forked import Forked, run

_SECONDS: Final = 30


def sekisho(*argv: str | Path, env: dict[str, str] | None = None) -> str:
    """Run a command to its end and return what it printed; raise when it fails."""
    done = run(argv, timeout=_SECONDS, env=os.environ | (env or {}))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def failing(*argv: str | Path) -> tuple[int, str]:
    """Run a command that fails; return its status and what it said."""
    done = run(argv, timeout=_SECONDS)
    return done.returncode, done.stderr


@dataclass(slots=True)
class BrokerProcess:
    """A running broker, and what it has logged so far."""

    process: Forked
    config: Path
    lines: list[dict[str, Any]] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def port(self) -> int:
        return int(self.event("broker_ready")["port"])

    def event(self, name: str) -> dict[str, Any]:
        """Return the first logged event of this name, waiting for it."""
        with self._changed:
            found = self._changed.wait_for(lambda: self._find(name), _SECONDS)
        assert found, (name, self.text)
        return found

    def _find(self, name: str) -> dict[str, Any] | None:
        return next((line for line in self.lines if line.get("event") == name), None)

    def read(self) -> None:
        assert self.process.stderr is not None
        for text in self.process.stderr:
            with self._changed:
                self.text.append(text)
                self.lines.append(json.loads(text))
                self._changed.notify_all()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(_SECONDS)


@contextmanager
def broker_process(config: Path, env: dict[str, str] | None = None) -> Iterator[BrokerProcess]:
    """Run a broker until the end of the block."""
    process = Forked(
        ["broker", "serve", "--config", config],
        stderr=subprocess.PIPE,
        env=os.environ | (env or {}),
    )
    broker = BrokerProcess(process, config)
    reader = threading.Thread(target=broker.read, daemon=True)
    reader.start()
    try:
        yield broker
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(_SECONDS)
        reader.join(_SECONDS)
        assert process.stderr is not None
        process.stderr.close()


@dataclass(frozen=True, slots=True)
class Certificates:
    """A throw-away authority, and a certificate of 127.0.0.1 in files."""

    cert: Path
    key: Path
    ca: Path
    trust: ssl.SSLContext


def certificates(folder: Path) -> Certificates:
    """Make certificates in ``folder``."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    cert, key, ca = (folder / f"{name}.pem" for name in ("cert", "key", "ca"))
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    ca.write_bytes(authority.cert_pem.bytes())
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    return Certificates(cert, key, ca, trust)
