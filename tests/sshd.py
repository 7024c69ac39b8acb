"""A real sshd for tests: throw-away keys, its own port of this machine, stopped with the test.

As root it serves an ordinary user made for it too; as anybody else only that user.
"""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sekisho.adapters.hosts.ssh import SshAddress, SshHost

SSHD: Final = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or "sshd"
#: Not a name of a person: made when it is not there, and left there for the next test.
USER: Final = "sekisho-far"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ordinary_user() -> str:
    """Return a user without privileges who can log in with a key; ourselves when we are one."""
    if os.geteuid() != 0:
        return getpass.getuser()
    with suppress(KeyError):
        return pwd.getpwnam(USER).pw_name
    subprocess.run(
        ["useradd", "--create-home", "--shell", "/bin/sh", "--password", "*", USER],
        check=True,
        capture_output=True,
    )
    return USER


def make_key(file: Path) -> Path:
    """Make a key pair; return the private one's file."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "trial", "-f", str(file)],
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    return file


@dataclass
class Sshd:
    """One server. ``lines`` go to its configuration as they are, and before ours: the first counts.

    ``within`` is a command line that runs the server in surroundings of its own, by `exec`.
    """

    place: Path
    user: str
    lines: Sequence[str] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    within: Sequence[str] = ()
    #: Where sshd reads keys as the user who logs in: a test's own place is closed to others.
    open_place: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="sk-keys-")))

    def prepare(self) -> None:
        self.place.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.open_place.chmod(0o755)
        make_key(self.place / "host")
        self.authorize(make_key(self.place / "key").with_suffix(".pub").read_text())
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        environment = [line.partition(" ")[2] for line in self.lines if line.startswith("SetEnv ")]
        if not self.within:  # what bash reads at a login is somebody else's, and may take long
            environment.append("SHLVL=1")
        settings = [
            *([f"SetEnv {' '.join(environment)}"] if environment else []),
            *self.lines,
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self.place}/host",
            "PidFile none",
            f"AuthorizedKeysFile {self.open_place}/authorized_keys",
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            "Subsystem sftp internal-sftp",
            *self.lines,  # of a setting given twice, the first is taken
            "LogLevel VERBOSE",
        ]
        (self.place / "sshd_config").write_text("\n".join(settings) + "\n")

    def authorize(self, *lines: str) -> None:
        """Let in whoever has one of these keys, and nobody else."""
        file = self.open_place / "authorized_keys"
        file.write_text("".join(f"{line.strip()}\n" for line in lines))
        file.chmod(0o644)

    @property
    def log(self) -> Path:
        return self.place / "sshd.log"

    @property
    def logins(self) -> int:
        """How many logins it has seen succeed."""
        return self.log.read_text("utf-8", "replace").count("Accepted publickey")

    def start(self) -> None:
        own = [SSHD, "-D", "-f", str(self.place / "sshd_config"), "-E", str(self.log)]
        argv = [*self.within, *own]
        self.process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + 10
        while not _listens(self.port):
            if time.monotonic() > end or self.process.poll() is not None:
                raise RuntimeError(self.log.read_text("utf-8", "replace"))

    def stop(self) -> None:
        """End the server; those that serve a connection go on, as after a restart of sshd."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)
            self.process = None

    def children(self) -> list[int]:
        """Return the processes that serve a connection of this very server."""
        return [] if self.process is None else _descendants(self.process.pid)

    def cut(self) -> None:
        """Kill what serves the connections, as a broken line would."""
        for pid in self.children():
            if _name(pid) == "sshd":
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def alias(self, name: str, *, key: Path | None = None, extra: Sequence[str] = ()) -> str:
        """Return the lines of an ssh configuration that lead here."""
        lines = [
            f"Host {name}",
            "  HostName 127.0.0.1",
            f"  Port {self.port}",
            f"  User {self.user}",
            f"  IdentityFile {key or self.place / 'key'}",
            "  IdentitiesOnly yes",
            "  IdentityAgent none",
            f"  UserKnownHostsFile {self.place}/known_hosts",
            "  GlobalKnownHostsFile /dev/null",
            *(f"  {line}" for line in extra),
        ]
        return "\n".join(lines) + "\n"

    def trust(self) -> None:
        """Write the host's key to where the client looks."""
        kind, key = (self.place / "host.pub").read_text().split()[:2]
        (self.place / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {kind} {key}\n")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    waiting = [pid]
    while waiting:
        with suppress(OSError):
            here = waiting.pop()
            words = Path(f"/proc/{here}/task/{here}/children").read_text().split()
            waiting += [int(word) for word in words]
            found += [int(word) for word in words]
    return found


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


@contextmanager
def serving(
    place: Path,
    *,
    user: str | None = None,
    lines: Sequence[str] = (),
    within: Sequence[str] = (),
    before: Callable[[Path], object] = lambda _place: None,
) -> Iterator[Sshd]:
    """Give a running server that the aliases of its own configuration trust.

    ``before`` sees the server's place when all is written and nothing has started.
    """
    server = Sshd(place, user or getpass.getuser(), lines, within=within)
    server.prepare()
    server.trust()
    before(place)
    server.start()
    try:
        yield server
    finally:
        server.cut()
        server.stop()
        shutil.rmtree(server.open_place)


@contextmanager
def reached(server: Sshd, place: Path) -> Iterator[SshHost]:
    """Give the host as a client sees it, with sockets of its own; its connection ends with it."""
    file = place / "ssh_config"
    file.write_text(server.alias("far"))
    with connected_as(SshAddress(host="far", config_file=file, logins_per_minute=600)) as host:
        yield host


@contextmanager
def connected_as(address: SshAddress) -> Iterator[SshHost]:
    """Give a host with a socket directory of its own, below a short path."""
    place = Path(f"/tmp/sekisho-t-{os.getpid()}-{time.monotonic_ns()}")
    place.mkdir(mode=0o700)
    host = SshHost(address, place)
    try:
        yield host
    finally:
        host.disconnect()
        remove(place)


def put(file: Path, text: str) -> None:
    """Give ``file`` this text, unless it has it, at once: programs that run may be reading it."""
    if not file.exists() or file.read_text() != text:
        new = file.with_name(f".{file.name}.new")
        new.write_text(text)
        new.replace(file)


def remove(place: Path) -> None:
    """Remove a directory of sockets, while masters that were told to end remove their own."""
    while place.exists():
        with suppress(FileNotFoundError):
            shutil.rmtree(place)
