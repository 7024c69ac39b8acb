"""A program of ours whose nth write below some directory fails, whichever thread or child makes it.

Not strace: that counts the calls of each thread, and whole programs have many. What `rsync`, `ssh`
and shells write is not seen here.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.forked import Forked

SECONDS: Final = 90
_LINE: Final = 160
_BY_FD: Final = (
    *("write", "writev", "pwrite", "pwritev", "fsync", "fdatasync", "ftruncate"),
    *("sendfile", "copy_file_range"),
)
_BY_NAME: Final = ("mkdir", "symlink", "mkfifo")
_RENAMES: Final = ("rename", "replace", "link")
_WRITING: Final = os.O_WRONLY | os.O_RDWR
#: A disk without room lets files be renamed, and gives no word at a sync that it gave at a write.
_ROOMLESS: Final = frozenset({"fsync", "fdatasync", "rename", "replace", "ftruncate"})


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which write fails: the ``nth`` below ``roots``, by the error's name; 0: none, all are noted.

    With ENOSPC every later one as well, until the file ``mended`` exists: the disk is full. With
    KILL the process dies there.
    """

    roots: Sequence[str]
    trace: str
    nth: int = 0
    error: str = "EIO"
    mended: str = ""

    def steps(self) -> list[str]:
        """Return the writes so far, in order."""
        try:
            text = Path(self.trace).read_text("utf-8")
        except FileNotFoundError:
            return []
        return [text[n : n + _LINE].strip() for n in range(0, len(text), _LINE)]

    def met(self) -> bool:
        """Say whether the write that fails was made."""
        return 0 < self.nth <= len(self.steps())


def arm(plan: Plan) -> None:
    """Let the calls of this process fail as planned, and those of what it forks."""
    judge = _Judge(plan)
    for name in _BY_FD:
        _wrap(os, name, judge, lambda words, _: f"/proc/self/fd/{int(words[0])}")
    for name in _BY_NAME:
        _wrap(os, name, judge, _linked if name == "symlink" else _made)
    for name in _RENAMES:
        _wrap(os, name, judge, lambda words, named: _place(words[1], named.get("dst_dir_fd")))
    _wrap(os, "open", judge, _opened)
    for module in (io, builtins):
        _wrap(module, "open", judge, _streamed)


def _made(words: Sequence[Any], named: Mapping[str, Any]) -> str | None:
    return _place(words[0], named.get("dir_fd"))


def _linked(words: Sequence[Any], named: Mapping[str, Any]) -> str | None:
    return _place(words[1], named.get("dir_fd"))


def _opened(words: Sequence[Any], named: Mapping[str, Any]) -> str | None:
    flags = words[1] if len(words) > 1 else named["flags"]
    return _place(words[0], named.get("dir_fd")) if flags & _WRITING else None


def _streamed(words: Sequence[Any], named: Mapping[str, Any]) -> str | None:
    mode = words[1] if len(words) > 1 else named.get("mode", "r")
    reads = mode[:1] == "r" and "+" not in mode
    return None if reads or isinstance(words[0], int) else _place(words[0], None)


def _place(path: Any, folder: int | None) -> str:
    base = Path.cwd() if folder is None else Path(f"/proc/self/fd/{folder}").readlink()
    return str(base / os.fsdecode(path))


def _wrap(
    module: Any,
    name: str,
    judge: _Judge,
    place: Callable[[Sequence[Any], Mapping[str, Any]], str | None],
) -> None:
    true = getattr(module, name)

    def called(*words: Any, **named: Any) -> Any:
        if (at := place(words, named)) is not None:
            judge.hear(name, at)
        return true(*words, **named)

    setattr(module, name, called)


@dataclass
class _Judge:
    """Numbers the writes of all processes by the length of one file, and fails the chosen one."""

    plan: Plan
    true_open: Callable[..., int] = field(default=os.open)
    true_write: Callable[..., int] = field(default=os.write)

    def hear(self, name: str, place: str) -> None:
        if place.startswith("/proc/self/fd/"):
            place = str(Path(place).readlink())
        if not any(place.startswith(root) for root in self.plan.roots):
            return
        number = self._number(f"{name} {place}")
        plan, full = self.plan, self.plan.error == "ENOSPC"
        due = number == plan.nth or (full and 0 < plan.nth < number)
        mended = plan.mended != "" and Path(plan.mended).exists()
        if not due or (full and (name in _ROOMLESS or mended)):
            return
        if plan.error == "KILL":
            os.kill(os.getpid(), signal.SIGKILL)
        code = getattr(errno, plan.error)
        raise OSError(code, os.strerror(code))

    def _number(self, text: str) -> int:
        """Note a write; return its number among those of all processes."""
        line = text.encode("utf-8", "replace")[: _LINE - 1].ljust(_LINE - 1) + b"\n"
        fd = self.true_open(self.plan.trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self.true_write(fd, line)
            return os.lseek(fd, 0, os.SEEK_CUR) // _LINE
        finally:
            os.close(fd)


def armed(plan: Plan) -> str:
    """Return what a process runs first, see `tests.forked.Forked`, so that it is armed."""
    return f"from {__name__} import Plan, arm; arm(Plan(**{vars(plan)!r}))"


# ------------------------------------------------------------------------------- command lines


@dataclass(frozen=True)
class Said:
    """How one command line ended."""

    status: int
    out: str
    err: str


class Prompt:
    """Runs command lines of ours, one after the other."""

    running: Forked | None = None

    def run(self, environ: Mapping[str, str], *words: str, plan: Plan | None = None) -> Said:
        pipe, first = subprocess.PIPE, "" if plan is None else armed(plan)
        with Forked(words, env=environ, stdout=pipe, stderr=pipe, first=first) as self.running:
            try:
                out, err = self.running.communicate(timeout=SECONDS)
            except subprocess.TimeoutExpired:
                self.running.kill()
                raise
        return Said(self.running.wait(), out, err)
