"""Files to and from a host by rsync, over the host's shared connection.

Rule 1: names go to the other side over rsync's own protocol (`-s`), never through its shell.
Rule 2: what comes back is only what was asked for by name, plain files, with modes of our own.
Rule 3: an interrupted transfer leaves its partial files where the next one goes on.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from sekisho.adapters.hosts.ssh import SshHost
from sekisho.adapters.hosts.ssh_fault import SSH_FAULT, fault_of, last_line
from sekisho.domain.errors import (
    SekishoError,
    StorageFull,
    TooLarge,
    Unavailable,
    Unreachable,
    UsageError,
)
from sekisho.domain.limits import MAX_DEPTH

#: A transfer without a byte for so long is given up, and tried again.
SILENCE_S: Final = 60
#: Plain files, their times, no owners. Other modes than these two are not carried.
_SHAPE: Final = ("-rt", "-s", "--partial", "--chmod=D0700,Fgo=")
_COUNT: Final = re.compile(rb"\r\s*([\d,]+)\s+\d+%")
#: The end of a line of rsync's, which a file's name can be in, too.
_NO_ROOM: Final = re.compile(
    r": (?:No space left on device|(?:Disk q|Q)uota exceeded|File too large) \(\d+\)$", re.MULTILINE
)
_MISSING: Final = 127
_VERSION: Final = re.compile(rb"rsync +version v?(\d+)\.(\d+)")
_OLDEST: Final = (3, 1)
#: Before it, the other side could have files read or written beside those that were asked for
#: (CVE-2024-12084 to -12088). A distribution may have mended an older number.
SAFE: Final = (3, 4)
#: What an earlier job left is no longer there: less to begin with, and no fault.
_REMARK: Final = re.compile(r"^--\w+-dest arg does not exist.*\n?", re.MULTILINE)
#: What an rsync before 3.0 says of options that ours has sent.
_OLD: Final = re.compile(r"^rsync: .*unknown option", re.MULTILINE)
_FILE_FAULT: Final = 11
#: Also of an rsync or an ssh that somebody has ended: 16, 19, 20.
_LINE_BROKE: Final = frozenset({10, 12, 16, 19, 20, 30, 35, SSH_FAULT})
#: Some files could not be read, or were gone. Which, the receiver sees.
_PARTIAL: Final = frozenset({23, 24})


@dataclass(frozen=True, slots=True, kw_only=True)
class Landing:
    """Where files arrive: in ``place``, at most ``max_bytes`` of them.

    While one comes it is in the folder ``passing``, of the same file system; what is left there is
    what a killed rsync has left. ``sparse``: zeros take no room, at a cost for all else.
    """

    place: Path
    passing: Path
    max_bytes: int
    sparse: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where files go: into the directory ``place`` of the host.

    ``bases`` are directories there, relative to it, whose equal files are not sent. With ``verify``
    equal size and time are not believed: somebody may have changed them. While a file comes it is
    in ``passing``, relative to the place, or else beside its name. ``sparse`` is as in `Landing`.
    """

    place: str
    bases: Sequence[str] = ()
    verify: bool = False
    passing: str | None = None
    sparse: bool = False


@dataclass(frozen=True, slots=True)
class Rsync:
    """Transfers with one host. ``report`` is told the bytes moved so far."""

    host: SshHost
    silence_s: int = SILENCE_S
    stall_s: float = 600.0  #: without a word of progress: longer than rsync's own time-out

    def push(self, place: Path, to: Target, report: Callable[[int], None]) -> None:
        """Copy what is in ``place`` to where it belongs there, links followed."""
        options = [f"--copy-dest={base}" for base in to.bases] + ["--ignore-times"] * to.verify
        options += [] if to.passing is None else [f"--temp-dir={to.passing}"]
        options += ["--sparse"] * to.sparse
        argv = [*self._argv(), "-p", "--copy-links", *options, "--", f"{place}/"]
        self._run([*argv, f"{self.host.address.host}:{to.place}/"], b"", report, None)

    def pull(
        self,
        source: str,
        names: Sequence[str],
        to: Landing,
        report: Callable[[int], None],
    ) -> None:
        """Copy the files ``names`` below ``source``; those that are gone are not.

        Raise TooLarge when more arrive than there is room for.
        """
        if any(name.count("/") > MAX_DEPTH + 1 or "\0" in name for name in names):
            raise UsageError("path.invalid", path="", why="depth")
        argv = [*self._argv(), "--from0", "--files-from=-"]
        argv += [f"--temp-dir={to.passing}", *["--sparse"] * to.sparse]
        argv += ["--", f"{self.host.address.host}:{source}/", f"{to.place}/"]
        self._run(argv, b"".join(n.encode() + b"\0" for n in names), report, to.max_bytes)

    def _argv(self) -> list[str]:
        silence = f"--timeout={self.silence_s}"
        return ["rsync", *_SHAPE, silence, "--info=progress2", "-e", self._shell()]

    def _shell(self) -> str:
        """Return the ssh command as rsync splits it: a quote within quotes is doubled."""
        return " ".join("'" + word.replace("'", "''") + "'" for word in self.host.command())

    def _run(
        self,
        argv: Sequence[str],
        stdin: bytes,
        report: Callable[[int], None],
        max_bytes: int | None,
    ) -> None:
        self.host.connect()
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as names:
            names.write(stdin)
            names.seek(0)
            with _started(argv, names, said) as process:
                moved = _watched(process, report, max_bytes, self.stall_s)
            said.seek(0)
            words = said.read(65_536)
        if max_bytes is not None and moved > max_bytes:
            raise TooLarge("tree.too_large", limit=max_bytes)
        forgiven = _PARTIAL if max_bytes is not None else frozenset()
        if process.returncode not in {0, *forgiven} or _NO_ROOM.search(
            words.decode("utf-8", "replace")
        ):
            fault = self._fault(process.returncode, words, arriving=max_bytes is not None)
            fault.advanced = moved > 0 and not isinstance(fault, StorageFull)  # sent, not kept
            raise fault

    def _fault(self, code: int, said: bytes, *, arriving: bool) -> SekishoError:
        host, text = self.host.address.host, _REMARK.sub("", said.decode("utf-8", "replace"))
        if _NO_ROOM.search(text):  # who receives writes
            return StorageFull("fetch.disk_full" if arriving else "bare.storage")
        if code == _MISSING or "rsync: command not found" in text or "rsync: not found" in text:
            return UsageError("bare.no_rsync", host=host)
        if _OLD.search(text):
            return UsageError("bare.rsync_old", host=host, version="< 3.0")
        unsaid = code == _FILE_FAULT and not text.strip()  # its last words were lost
        if code in _LINE_BROKE or code < 0 or unsaid:
            fault = fault_of(self.host.address, said)
            return fault if isinstance(fault, Unavailable) else Unreachable(said=last_line(text))
        return SekishoError("bare.rsync", host=host, said=last_line(text), status=code)


@dataclass(frozen=True, slots=True)
class Version:
    """One side's rsync. ``place`` is a host, or "-" for this side."""

    place: str
    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"

    @property
    def unsafe(self) -> bool:
        """Whether its number is below that of the release without the known holes."""
        return (self.major, self.minor) < SAFE


def versions(host: SshHost) -> tuple[Version, ...]:
    """Return both sides' versions of rsync; raise UsageError when one is missing or too old."""
    argv = ["rsync", "--version"]
    try:
        here = subprocess.run(argv, capture_output=True, check=False).stdout
    except FileNotFoundError:
        here = b""
    seen = []
    for place, text in (("-", here), (host.address.host, host.run(argv).stdout)):
        found = _VERSION.search(text)
        version = Version(place, int(found[1]), int(found[2])) if found else None
        if version is None:
            raise UsageError("bare.no_rsync", host=place)
        if (version.major, version.minor) < _OLDEST:
            raise UsageError("bare.rsync_old", host=place, version=str(version))
        seen.append(version)
    return tuple(seen)


def _started(argv: Sequence[str], names: IO[bytes], said: IO[bytes]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            argv, stdin=names, stdout=subprocess.PIPE, stderr=said, start_new_session=True
        )
    except FileNotFoundError as error:
        raise UsageError("bare.no_rsync", host="-") from error


def _watched(
    process: subprocess.Popen[bytes],
    report: Callable[[int], None],
    max_bytes: int | None,
    stall_s: float,
) -> int:
    """Read rsync's counter to its end, and return it; past ``max_bytes`` rsync is ended.

    Before the two sides agree on a transfer, rsync has no time-out: one that stalls is ended too.
    """
    if process.stdout is None:
        raise ValueError(process)
    rest, moved = b"", 0
    try:
        while select.select([process.stdout], [], [], stall_s)[0]:
            data = os.read(process.stdout.fileno(), 4096)
            if not data:
                return moved
            rest = (rest + data)[-4096:]
            moved = int((_COUNT.findall(rest) or [b"0"])[-1].replace(b",", b""))
            report(moved)
            if max_bytes is not None and moved > max_bytes:
                break
        process.kill()
    except BaseException:
        process.terminate()
        _ended(process)
        raise
    return moved


def _ended(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
