"""The old command lines, run as scripts run them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.faults.program import clean_environ

SECONDS = 60


def argv(entry: str, *words: str | Path) -> list[str]:
    code = f"from sekisho.cli.mint_main import {entry}; {entry}()"
    return [sys.executable, "-c", code, *map(str, words)]


def run(entry: str, *words: str | Path, cwd: Path, **environ: str) -> tuple[int, str, str]:
    done = subprocess.run(
        argv(entry, *words),
        cwd=cwd,
        env=clean_environ(cwd) | environ,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, done.stdout, done.stderr
