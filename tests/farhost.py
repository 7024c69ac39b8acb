"""A computing host for tests: a real sshd on this machine, with what old hosts have and lack.

Whoever logs in there is an ordinary user, never root: what a test gets wrong can reach only what
is that user's. The user's directory for jobs is made here, and everything below it goes with it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sekisho.adapters.hosts.far import FarHost
from tests.mounts import within_mounts
from tests.sshd import Sshd, ordinary_user, reached, serving

BUSYBOX: Final = shutil.which("busybox") or "busybox"
#: What a start-up file of such a host prints before every command.
NOISE: Final = "*** Welcome to hpc. Maintenance on Friday. ***"


@dataclass(frozen=True)
class Far:
    """A host, the server behind it, and a directory of its user's own."""

    host: FarHost
    server: Sshd
    home: Path
    uid: int

    def room(self) -> Path:
        """Make a fresh directory there, the user's own."""
        place = Path(tempfile.mkdtemp(dir=self.home))
        os.chown(place, self.uid, self.uid)
        return place

    @property
    def disk(self) -> Path:
        """The folder `disk` of the home, as whoever logs in sees it."""
        process = self.server.process
        seen = "" if process is None else f"/proc/{process.pid}/root"
        return Path(f"{seen}{self.home}/disk")

    def give(self, top: Path) -> None:
        """Make what a test has put below ``top`` the user's own, links themselves included."""
        if os.geteuid() != 0:
            return
        entries = [Path(at, name) for at, *names in os.walk(top) for name in (*names[0], *names[1])]
        names = Counter((p.lstat().st_dev, p.lstat().st_ino) for p in entries)
        for entry in entries:
            seen = entry.lstat()
            inside = entry.is_dir() or names[seen.st_dev, seen.st_ino] == seen.st_nlink
            if seen.st_uid == 0 and inside:
                os.lchown(entry, self.uid, self.uid)


class Given:
    """A workplace there: what the test, as root, has left below ``top`` is the user's first."""

    def __init__(self, workplace: Any, far: Far, top: Path) -> None:
        self._workplace, self._far, self._top = workplace, far, top

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._workplace, name)

        def called(*arguments: Any) -> Any:
            self._far.give(self._top)
            return method(*arguments)

        return called


def restricted_path(folder: Path) -> Path:
    """Make a PATH of nothing but busybox, its own shell included: no Python.

    Nor `stat`, which POSIX does not know and old hosts do not have.
    """
    folder.mkdir(mode=0o755)
    names = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout
    for name in {*names.split()} - {"stat"}:
        (folder / name).symlink_to(BUSYBOX)
    return folder


@contextmanager
def far_host(
    place: Path,
    *,
    busybox: bool = False,
    noisy: bool = False,
    shell: str | None = None,
    disk_bytes: int | None = None,
    lines: Sequence[str] = (),
) -> Iterator[Far]:
    """Give a host: with ``busybox`` as its only programs, ``noisy`` before and beside them all.

    ``shell`` takes the lines of a login in place of the user's own. With ``disk_bytes``, the folder
    `disk` of the home is a file system of so many bytes for whoever logs in: see `Far.disk`.
    """
    user = ordinary_user()
    entry = pwd.getpwnam(user)
    if entry.pw_uid == 0:
        raise RuntimeError("a computing host is for an ordinary user")
    home = Path(tempfile.mkdtemp(prefix="sk-far-"))
    home.chmod(0o755)
    (home / "disk").mkdir()
    os.chown(home, entry.pw_uid, entry.pw_gid)
    settings = [*lines, f"AllowUsers {user}", "MaxSessions 50", "MaxStartups 50:30:100"]
    if busybox:
        settings.append(f"SetEnv PATH={restricted_path(home / 'bin')}")
    if noisy:
        settings += _noise(home)
    if shell is not None:
        settings.append(f'ForceCommand exec {shell} -c "$SSH_ORIGINAL_COMMAND"')
    mount = 'mount -t tmpfs -o "size=$1,mode=0777" none "$0"'
    small = str(home / "disk"), str(disk_bytes)
    within = [] if disk_bytes is None else within_mounts(mount, *small)
    try:
        with (
            serving(place / "sshd", user=user, lines=settings, within=within) as server,
            reached(server, place) as ssh,
        ):
            yield Far(FarHost(ssh), server, home, entry.pw_uid)
    finally:
        shutil.rmtree(home)


def _noise(home: Path) -> list[str]:
    banner = home / "banner"
    banner.write_text(f"{NOISE}\n")
    loud = home / "loud.sh"
    loud.write_text(
        f"#!/bin/sh\necho '{NOISE}'; echo '{NOISE}' >&2\nexec /bin/sh -c "
        '"$SSH_ORIGINAL_COMMAND"\n'
    )
    loud.chmod(0o755)
    return [f"Banner {banner}", f"ForceCommand {loud}"]
