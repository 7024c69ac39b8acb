"""Disks in a file, mounted for one program alone: file systems that the tests' own disk is not."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.mounts import within_mounts

#: Whether we may mount one: an ordinary account may not, in a name space of its own either.
MAY_MOUNT: Final = os.geteuid() == 0
BYTES: Final = 400 << 20  #: XFS wants 300 MiB at least; what is not written takes no room
_MAKE: Final = {
    "xfs": ("mkfs.xfs", "-q", "-m", "reflink=1"),
    "btrfs": ("mkfs.btrfs", "-q"),
    "ext4": ("mkfs.ext4", "-q"),
}


def a_disk(kind: str, file: Path, size: int = BYTES) -> Path:
    """Make ``file`` an empty disk of ``size`` bytes with a file system of that kind."""
    with file.open("wb") as made:
        made.truncate(size)
    name, *options = _MAKE[kind]
    program = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert program is not None, name
    subprocess.run([program, *options, str(file)], check=True, capture_output=True)
    return file


def mounted(disk: Path, folder: Path) -> list[str]:
    """Return the beginning of a command line: what follows finds ``disk`` at ``folder``."""
    text = 'mount -o loop "$0" "$1" && chmod 700 "$1"'
    return within_mounts(text, str(disk), str(folder))
