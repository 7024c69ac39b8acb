"""The site's host as ssh reaches it: a throw-away sshd on this machine, with a key of its own."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from examples.demo.engineer import KEYS
from examples.demo.places import Places
from examples.demo.proof import processes_in, processes_of
from examples.demo.shell import DemoFault, Person, Shell

_PROGRAMS = ("sshd", "ssh", "ssh-keygen", "rsync")
_START_SECONDS = 20.0
_LOOK_SECONDS = 0.05


def found_program(name: str) -> str | None:
    """Return where ``name`` is, also where only the administrator looks."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def missing_programs() -> list[str]:
    """Return which of the programs of push mode are not installed."""
    return [name for name in _PROGRAMS if found_program(name) is None]


class Host:
    """The server and its log. It lets in whoever has a key in the site's list, and nobody else."""

    def __init__(self, shell: Shell, places: Places) -> None:
        self._shell = shell
        self._places = places
        self._who = Person("engineer", places.site)
        self.pid = 0

    def start(self) -> None:
        """Make the host's key, start the server, and wait until it listens."""
        self._make_key()
        self._configure()
        log = self._places.site / "sshd.log"
        settings = str(self._places.site / "sshd_config")
        argv = (found_program("sshd") or "sshd", "-D", "-e", "-f", settings)
        self.pid = self._shell.start(self._who, argv, log)
        until = time.monotonic() + _START_SECONDS
        while "Server listening" not in log.read_text("utf-8", "replace"):
            if time.monotonic() > until or not self._shell.alive(self.pid):
                raise DemoFault("sshd does not run\n" + log.read_text("utf-8", "replace"))
            time.sleep(_LOOK_SECONDS)

    @property
    def public_key(self) -> str:
        return (self._places.site / "host_key.pub").read_text("utf-8")

    @property
    def logins(self) -> int:
        """How many logins the server has let in."""
        return self._log().count("Accepted publickey")

    def cut(self) -> int:
        """Kill what serves the connections, as a broken line would; return how many it was."""
        served = [pid for pid in _below(self.pid) if _name(pid).startswith("sshd")]
        for pid in served:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(served)

    def abandon(self) -> None:
        """Kill what computes at the site and whoever carries it: their places will be removed."""
        places = (self._places.work_base, self._places.bare_base)
        computing = {pid for place in places for pid in processes_in(place)}
        carrying = {pid for pid in processes_of(self._places.site) if _carries(pid)}
        for pid in computing | carrying:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _log(self) -> str:
        return (self._places.site / "sshd.log").read_text("utf-8", "replace")

    def _make_key(self) -> None:
        argv = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "host_key")
        self._shell.run(self._who, argv)

    def _configure(self) -> None:
        if os.geteuid() == 0:  # where sshd keeps its unprivileged half
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        site = self._places.site
        lines = [
            f"Port {self._places.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {site}/host_key",
            f"AuthorizedKeysFile {site}/{KEYS}",
            f"AllowUsers {getpass.getuser()}",
            "PidFile none",
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            "Subsystem sftp internal-sftp",
            "LogLevel VERBOSE",
        ]
        text = "".join(f"{line}\n" for line in lines)
        (site / "sshd_config").write_text(text, "utf-8")


def _below(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for word in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split():
            yield int(word)
            yield from _below(int(word))


def _carries(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"sekisho.cli.gate" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text("utf-8").strip()
    return ""
