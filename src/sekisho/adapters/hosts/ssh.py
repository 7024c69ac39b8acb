"""Another host through the system's OpenSSH, with the user's own configuration as it is.

Rule 1: one login for each host: a master connection behind a private socket, shared by all our
        processes of this user and kept for a while after the last of them. Everything else goes
        through it or fails at once; nothing logs in behind its back.
Rule 2: logins are counted over all processes, and wait when a host would see too many of them.
Rule 3: only a login may ask something, at a terminal, and not again and again where connections are
        lost soon after it. Host keys are never learnt here.
Rule 4: no text of a user is interpreted: a remote command is quoted word by word (`quote`).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shlex
import socket
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from sekisho.adapters.hosts.quote import quoted
from sekisho.adapters.hosts.ssh_cipher import cipher_options
from sekisho.adapters.hosts.ssh_fault import SSH_FAULT, fault_of, reached, unreachable
from sekisho.adapters.hosts.talk import talk
from sekisho.domain.errors import (
    ConfigError,
    SekishoError,
    Unauthenticated,
    Unavailable,
    UsageError,
)

HOST_PATTERN: Final = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]*@)?[A-Za-z0-9_][A-Za-z0-9._-]*")
#: Of a server's usual ten sessions of one connection, two are left to others.
_SESSIONS: Final = 8
_BUSY_PAUSE_S: Final = 0.2
_LOGIN_WINDOW_S: Final = 60.0
#: So many logins in a row may ask a person; those after them must do without.
_MAY_ASK: Final = 3
_IN_A_ROW_S: Final = 60.0
_ALWAYS: Final = (
    "LogLevel=ERROR",
    "StrictHostKeyChecking=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "ClearAllForwardings=yes",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "RequestTTY=no",
    "ServerAliveInterval=10",
    "ServerAliveCountMax=3",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SshAddress:
    """How a host is reached. ``host`` is a name of the user's ssh configuration, or user@name."""

    host: str
    config_file: Path | None = None  #: None: ~/.ssh/config and the system's
    persist_s: int = 600  #: how long the connection outlives its last use
    connect_s: int = 30
    logins_per_minute: int = 8
    interactive: bool = False  #: the first login may ask at the terminal

    def __post_init__(self) -> None:
        if HOST_PATTERN.fullmatch(self.host) is None:
            raise UsageError("ssh.host_name", host=self.host[:80])

    @property
    def configured(self) -> list[str]:
        """The words that let ssh read our configuration instead of the user's."""
        return [] if self.config_file is None else ["-F", str(self.config_file)]

    @property
    def by_hand(self) -> str:
        """The command line by which a person comes to the same host."""
        return shlex.join(["ssh", *self.configured, self.host])


@dataclass(frozen=True, slots=True)
class Completed:
    """What a remote command left behind."""

    code: int
    stdout: bytes
    stderr: bytes


def control_directory() -> Path:
    """Return the private directory of our sockets; raise ConfigError when it is not ours alone.

    Its name is short: a socket's may have 108 bytes, and OpenSSH adds some of its own.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    base = Path(runtime) if runtime and len(runtime) < 40 and os.access(runtime, os.W_OK) else None
    place = (base or Path("/tmp")) / f"sekisho-ssh-{os.geteuid()}"  # noqa: S108 (checked below)
    with suppress(FileExistsError):
        place.mkdir(mode=0o700)
    seen = place.lstat()
    ours = stat.S_ISDIR(seen.st_mode) and seen.st_uid == os.geteuid()
    if not ours or seen.st_mode & 0o077:
        raise ConfigError("ssh.control_directory", file=str(place))
    return place


class SshSession:
    """One remote command in the making: write to ``stdin``, read from ``stdout``. Close it."""

    def __init__(
        self, address: SshAddress, process: subprocess.Popen[bytes], said: IO[bytes]
    ) -> None:
        if process.stdin is None or process.stdout is None:
            raise ValueError(process)
        self.stdin: IO[bytes] = process.stdin
        self.stdout: IO[bytes] = process.stdout
        self._address = address
        self._process = process
        self._said = said

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def fault(self, within_s: float = 5.0) -> SekishoError | None:
        """Return why the session ended: None when the remote command ended by itself, well.

        To be asked after the end of ``stdout``.
        """
        try:
            code = self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            return unreachable(self._address)
        return None if code == 0 else fault_of(self._address, self.said())

    def said(self) -> bytes:
        """Return what ssh and the remote command wrote to stderr."""
        self._said.seek(0)
        return self._said.read(65_536)

    def close(self) -> None:
        """End the session; what the remote command has started lives on."""
        for stream in (self.stdin, self.stdout):
            with suppress(OSError):
                stream.close()
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()


@dataclass(slots=True)
class SshHost:
    """One host. Safe to share between threads and, by its socket, between processes."""

    address: SshAddress
    directory: Path = field(default_factory=control_directory)
    room: threading.BoundedSemaphore = field(
        default_factory=lambda: threading.BoundedSemaphore(_SESSIONS)
    )
    asked: list[float] = field(default_factory=list)  #: when logins ended that may have asked

    # ------------------------------------------------------------------ the connection

    @property
    def socket(self) -> Path:
        """The master's socket: the user's own while that listens, as after a login by hand.

        Ours is another one when the user's configuration was changed.
        """
        file = self.address.config_file or Path.home() / ".ssh" / "config"
        changed = file.stat().st_mtime_ns if file.exists() else 0
        theirs = _configured_socket(self.address.host, self.address.config_file, changed)
        if theirs is not None and _owned(theirs) and _listens(theirs):
            return theirs
        return self._own_socket(file, changed)

    def _own_socket(self, file: Path, changed: int) -> Path:
        named = f"{self.address.host}\0{file}\0{changed}".encode()
        return self.directory / hashlib.sha256(named).hexdigest()[:20]

    def connect(self) -> None:
        """Log in when there is no connection yet; raise what `ssh_fault` makes of a failure."""
        if self.connected():
            return
        place = self.socket
        with _locked(place.with_suffix(".lock")) as logins:
            if self.connected():
                return
            with suppress(FileNotFoundError):
                place.unlink()  # of a master that was killed
            wait_turn(logins, self.address.logins_per_minute)
            self._log_in(place)

    def connected(self) -> bool:
        """Say whether a master listens now. It may still find its line dead."""
        return _listens(self.socket)

    def disconnect(self) -> None:
        """End the shared connection, for all processes that use it; never one of the user's own."""
        if self.socket.parent != self.directory:
            return
        argv = [*self.command("-O", "exit"), "--", self.address.host]
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(argv, capture_output=True, check=False, timeout=10)

    def _may_ask(self) -> bool:
        """Say whether a login may ask now: not when the last ones, just before, were in vain."""
        if self.asked and time.monotonic() - self.asked[-1] > _IN_A_ROW_S:
            self.asked.clear()
        return self.address.interactive and len(self.asked) < _MAY_ASK

    def _log_in(self, place: Path) -> None:
        address, asking = self.address, self._may_ask()
        argv = [
            *("ssh", *address.configured, "-M", "-N", "-f", "-S", str(place)),
            *_options(f"ControlPersist={address.persist_s}"),
            *_options(f"ConnectTimeout={address.connect_s}", *_ALWAYS),
            *_options(f"BatchMode={'no' if asking else 'yes'}"),
            *cipher_options(address.configured, address.host),
            *("--", address.host),
        ]
        with tempfile.TemporaryFile(dir=self.directory) as said:
            # a file, not a pipe: the master that goes to the background may keep it open
            ended = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env={**os.environ, "LC_ALL": "C"},
                check=False,
            )
            said.seek(0)
            words = said.read(65_536)
        if asking and reached(words):
            self.asked.append(time.monotonic())
        if ended.returncode != 0 or not self.connected():
            fault = fault_of(address, words)
            if address.interactive and not asking and isinstance(fault, Unauthenticated):
                told = {"host": address.host, "ssh": address.by_hand, "count": _MAY_ASK}
                raise Unauthenticated("ssh.asked", **told) from fault
            raise fault

    # ---------------------------------------------------------------------- using it

    def command(self, *flags: str) -> list[str]:
        """Return the beginning of an ssh command line that only ever uses the shared connection.

        When that is gone it fails at once: the proxy command stands for every other way there.
        """
        return [
            *("ssh", *self.address.configured, "-S", str(self.socket), *flags),
            *_options("ControlMaster=no", "ProxyCommand=false", "BatchMode=yes", *_ALWAYS),
        ]

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60) -> Completed:
        """Run one remote command to its end; ``argv`` arrives word by word as it is.

        Any exit code but 255 is the command's own. Raise Unreachable when the line broke: whether
        the command ran is then unknown. A server without room for a session is asked again.
        """
        line = quoted(argv)
        end = time.monotonic() + timeout_s
        while True:
            self.connect()
            try:
                return self._run(line, stdin, max(0.1, end - time.monotonic()))
            except Unavailable as error:
                if error.code != "ssh.busy" or time.monotonic() + _BUSY_PAUSE_S > end:
                    raise
                threading.Event().wait(_BUSY_PAUSE_S)

    def _run(self, line: str, stdin: bytes, timeout_s: float) -> Completed:
        argv = [*self.command(), "--", self.address.host, line]
        with self.room:
            try:
                ended = talk(argv, stdin, timeout_s)
            except subprocess.TimeoutExpired as error:
                raise unreachable(self.address) from error
        if ended.returncode == SSH_FAULT or ended.returncode < 0:
            raise fault_of(self.address, ended.stderr)
        return Completed(ended.returncode, ended.stdout, ended.stderr)

    def session(self, argv: Sequence[str]) -> SshSession:
        """Start one remote command with open streams; never a shell that would read them.

        To be closed by the caller. What went wrong is told by `SshSession.fault`.
        """
        self.connect()
        line = quoted(argv)
        said = tempfile.TemporaryFile(dir=self.directory)  # noqa: SIM115 (the session closes it)
        process = subprocess.Popen(
            [*self.command(), "--", self.address.host, line],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            start_new_session=True,  # Ctrl+C is the caller's to hear, not the line's
        )
        return SshSession(self.address, process, said)


def _listens(place: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(str(place)) == 0


def _owned(place: Path) -> bool:
    with suppress(OSError):
        return place.lstat().st_uid == os.geteuid()
    return False


@lru_cache(maxsize=64)
def _configured_socket(host: str, config_file: Path | None, _changed: int) -> Path | None:
    """Return where the user's configuration has the connections to ``host`` shared, if it does."""
    file = [] if config_file is None else ["-F", str(config_file)]
    with suppress(OSError, subprocess.TimeoutExpired):
        argv = ["ssh", "-G", *file, "--", host]
        said = subprocess.run(argv, capture_output=True, check=False, timeout=10).stdout
        found = re.search(rb"^controlpath (/.{1,100})$", said, re.MULTILINE)
        return None if found is None else Path(os.fsdecode(found[1]))
    return None


def _options(*words: str) -> list[str]:
    return [part for word in words for part in ("-o", word)]


@contextmanager
def _locked(file: Path) -> Iterator[int]:
    """Hold the file's lock: one process logs in, the others find its connection."""
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


def wait_turn(
    fd: int,
    per_minute: int,
    now: Callable[[], float] = time.time,
    wait: Callable[[float], object] = lambda seconds: threading.Event().wait(seconds),
) -> None:
    """Wait until one more login makes no more than ``per_minute``, and note it in the open file."""
    words = os.pread(fd, 65_536, 0).split()
    seen = [float(word) for word in words if re.fullmatch(rb"\d{1,12}\.\d{1,6}", word)]
    recent = [at for at in seen if now() - _LOGIN_WINDOW_S < at <= now()]
    if len(recent) >= per_minute:
        wait(recent[-per_minute] + _LOGIN_WINDOW_S - now())
    noted = " ".join(f"{at:.3f}" for at in [*recent, now()][-per_minute:])
    os.ftruncate(fd, 0)
    os.pwrite(fd, noted.encode(), 0)
