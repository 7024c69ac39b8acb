"""A disk that clones files, in a file of its own, for one program alone: XFS, mounted by root."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

_MOUNT = 'mount -o loop "$0" "$1" && chmod 700 "$1" && shift && exec "$@"'


def to_be_had() -> bool:
    """Say whether this account can make and mount one."""
    return os.geteuid() == 0 and shutil.which("mkfs.xfs") is not None


def on_disk(file: Path, size: int, folder: Path) -> tuple[str, ...]:
    """Make ``file`` an empty disk of ``size`` bytes, which takes the room that is used of it.

    Return the beginning of a command line: what follows finds the disk at ``folder``.
    """
    with file.open("wb") as made:
        made.truncate(size)
    subprocess.run(("mkfs.xfs", "-q", "-m", "reflink=1", str(file)), check=True)
    return ("unshare", "--mount", "/bin/sh", "-c", _MOUNT, str(file), str(folder))
