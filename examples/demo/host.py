"""A host as ssh reaches it: a throw-away sshd on this machine, with a key of its own."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from examples.demo.engineer import KEYS
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
    """The server and its log in ``home``. It lets in whoever has a key in the list there."""

    def __init__(self, shell: Shell, home: Path, port: int) -> None:
        self._shell = shell
        self._home = home
        self._port = port
        self._who = Person("engineer", home)
        self.pid = 0

    def start(self) -> None:
        """Make the host's key, start the server, and wait until it listens."""
        self._make_key()
        self._configure()
        log = self._home / "sshd.log"
        settings = str(self._home / "sshd_config")
        argv = (found_program("sshd") or "sshd", "-D", "-e", "-f", settings)
        self.pid = self._shell.start(self._who, argv, log)
        until = time.monotonic() + _START_SECONDS
        while "Server listening" not in log.read_text("utf-8", "replace"):
            if time.monotonic() > until or not self._shell.alive(self.pid):
                raise DemoFault("sshd does not run\n" + log.read_text("utf-8", "replace"))
            time.sleep(_LOOK_SECONDS)

    @property
    def public_key(self) -> str:
        return (self._home / "host_key.pub").read_text("utf-8")

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

    def abandon(self, *places: Path) -> None:
        """Kill what computes in ``places`` and whoever carries it: they will be removed."""
        computing = {pid for place in places for pid in processes_in(place)}
        carrying = {pid for pid in processes_of(self._home) if _carries(pid)}
        for pid in computing | carrying:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _log(self) -> str:
        return (self._home / "sshd.log").read_text("utf-8", "replace")

    def _make_key(self) -> None:
        argv = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "host_key")
        self._shell.run(self._who, argv)

    def _configure(self) -> None:
        if os.geteuid() == 0:  # where sshd keeps its unprivileged half
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        home = self._home
        lines = [
            f"Port {self._port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {home}/host_key",
            f"AuthorizedKeysFile {home}/{KEYS}",
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
        (home / "sshd_config").write_text(text, "utf-8")


@contextlib.contextmanager
def sockets() -> Iterator[Path]:
    """Give a directory for OpenSSH's sockets, whose names must be short."""
    with tempfile.TemporaryDirectory(prefix="sk-", dir="/tmp") as made:
        yield Path(made)


def disconnect(shell: Shell, who: Person, place: Path, alias: str) -> None:
    """End the connections that sekisho keeps below ``place`` for the next job."""
    for socket in sorted(place.glob("*/*")):
        if socket.is_socket():
            argv = ("ssh", "-F", "ssh_config", "-S", str(socket), "-O", "exit", alias)
            shell.run(who, argv, expect=None)


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
