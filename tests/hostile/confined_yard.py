"""A work directory in which one line is tried, confined or not, beside what it must not reach."""

from __future__ import annotations

import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path

from sekisho.adapters.sandboxes.landlock import LandlockSandbox
from sekisho.domain.launch import Sandbox


@dataclass(frozen=True)
class Yard:
    """A work directory, and beside it what the command must not reach."""

    work: Path
    secret: Path
    canary: str

    def run(self, line: str, grants: Sandbox | None) -> str:
        """Run one line of sh in the work directory; return all that it left or said."""
        text = (
            line.replace("SECRET", str(self.secret))
            .replace("DIR", str(self.secret.parent))
            .replace("PYTHON", "/usr/bin/python3")
        )
        argv: tuple[str, ...] = ("/bin/sh", "-c", text)
        if grants is not None:
            argv = LandlockSandbox().wrap(argv, str(self.work), grants)
        done = subprocess.run(
            argv,
            cwd=self.work,
            env={"PATH": "/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=30,
        )
        left = [
            file.read_bytes()
            for file in self.work.iterdir()
            if file.is_file() and not file.is_symlink()
        ]
        return b"\n".join([done.stdout, done.stderr, *left]).decode("utf-8", "replace")


def yard_in(place: Path) -> Yard:
    """Make one in this empty directory, with a secret that nobody knows."""
    canary = f"SECRET-{secrets.token_hex(16)}"
    (place / "secrets").mkdir()
    secret = place / "secrets" / "secret.txt"
    secret.write_text(f"{canary}\n")
    (place / "work").mkdir()
    return Yard(place / "work", secret, canary)
