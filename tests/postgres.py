"""A real PostgreSQL server of a test's own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_READY = "database system is ready to accept connections"


@contextmanager
def a_database() -> Iterator[str]:
    """Run a throw-away server on a socket of its own, as safe as delivered; give its URL."""
    home = Path(tempfile.mkdtemp(prefix="sekisho-pg-"))
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
    become = _become_postgres(home)
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8"}
    try:
        make: list[str | Path] = [
            *become,
            programs / "initdb",
            "-D",
            home / "data",
            "-U",
            "postgres",
            "-A",
            "trust",
        ]
        make += ["-E", "UTF8", "--no-sync"]
        subprocess.run(make, cwd=home, env=env, check=True, capture_output=True)
        argv: list[str | Path] = [*become, programs / "postgres", "-D", home / "data", "-k", home]
        argv += ["-c", "listen_addresses=", "-c", "shared_buffers=16MB"]
        with subprocess.Popen(argv, cwd=home, env=env, stderr=subprocess.PIPE, text=True) as server:
            reader = _wait_ready(server)
            try:
                yield f"postgresql+psycopg://postgres@/postgres?host={home}"
            finally:
                server.send_signal(signal.SIGINT)  # a fast stop, whoever is still connected
                reader.join(60)
    finally:
        shutil.rmtree(home)


def _become_postgres(home: Path) -> list[str]:
    """Return what makes a program run as a user that the server accepts: not root."""
    if os.geteuid() != 0:
        return []
    shutil.chown(home, "postgres", "postgres")
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]


def _wait_ready(server: subprocess.Popen[str]) -> threading.Thread:
    """Return when the server says that it is ready, with the thread that reads what it says."""
    ready = threading.Event()

    def read() -> None:
        assert server.stderr is not None
        for line in server.stderr:
            if _READY in line:
                ready.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    assert ready.wait(60), "PostgreSQL did not start"
    return reader
