"""Mounts: which one an open file was reached by, and the kind of the file system there."""

from __future__ import annotations

import os
from pathlib import Path


def mount_of(fd: int) -> int:
    """Return the id of the mount that ``fd`` was opened on; -1 where the kernel does not tell.

    It tells a bind mount of the same device apart, which the device number does not.
    """
    try:
        info = os.open(f"/proc/self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        _, _, rest = os.read(info, 512).partition(b"mnt_id:")
    finally:
        os.close(info)
    return int(rest.split(b"\n", 1)[0])


def kind_of(fd: int) -> str:
    """Return the kind of the file system of ``fd``; nothing for a mount that is not ours.

    Found by the mount: the device number of a file on btrfs is not that of its mount.
    """
    number = str(mount_of(fd))
    for line in Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines():
        mount, _, system = line.partition(" - ")
        if mount.split(" ", 1)[0] == number:
            return system.split(" ", 1)[0]
    return ""
