"""A program of ours whose nth write below some directory fails, whichever thread or child makes it.

Not strace: that counts the calls of each thread, and whole programs have many. What `rsync`, `ssh`
and shells write is not seen here.
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

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

    def words(self) -> str:
        return json.dumps(vars(self) | {"roots": list(self.roots)})

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


#: The start of a program that gets a plan's words before its own.
ARMED: Final = (
    "import json, sys; from tests.faults.nth_write import Plan, arm; "
    "arm(Plan(**json.loads(sys.argv.pop(1)))); "
)


def before(plan: Plan) -> tuple[str, ...]:
    """Return what a Python program's command line, `python -c CODE …`, is an argument of."""
    return (sys.executable, "-c", f"{ARMED}del sys.argv[1:3]; exec(sys.argv.pop(1))", plan.words())


# ------------------------------------------------------------------- command lines, quickly


@dataclass(frozen=True)
class Said:
    """How one command line ended."""

    status: int
    out: str
    err: str


class Prompt:
    """Runs command lines of ours, each in a process of its own, forked from one that is ready."""

    def __init__(self, process: subprocess.Popen[str], place: Path) -> None:
        self._process = process
        self._place = place

    @property
    def pid(self) -> int:
        """The process whose only child is the command line that runs."""
        return self._process.pid

    def run(self, environ: Mapping[str, str], *words: str, plan: Plan | None = None) -> Said:
        out, err = self._place / "out", self._place / "err"
        told = {
            "words": words,
            "environ": dict(environ),
            "out": str(out),
            "err": str(err),
            "plan": None if plan is None else plan.words(),
        }
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], SECONDS)
        assert ready, (words, plan, err.read_text("utf-8"))
        status = int(self._process.stdout.readline())
        return Said(status, out.read_text("utf-8"), err.read_text("utf-8"))


@contextmanager
def prompt(place: Path) -> Iterator[Prompt]:
    place.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", "from tests.faults.nth_write import serve; serve()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        try:
            yield Prompt(process, place)
        finally:
            assert process.stdin
            process.stdin.close()


def serve() -> None:
    """Run the command lines that come on stdin until it ends."""
    from sekisho.cli import jobs, main, run  # noqa: PLC0415
    from sekisho.compose import client, push  # noqa: PLC0415

    del jobs, run, client, push  # loaded, before the first of them is needed
    for line in sys.stdin:
        told = json.loads(line)
        if (child := os.fork()) == 0:
            _be(told, main.main)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


def _be(told: Mapping[str, Any], program: Callable[[], None]) -> None:
    status = 70
    try:
        for number, name in ((1, "out"), (2, "err")):
            with Path(told[name]).open("wb") as stream:
                os.dup2(stream.fileno(), number)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.environ.clear()
        os.environ.update(told["environ"])
        sys.argv = ["sekisho", *told["words"]]
        if told["plan"] is not None:
            arm(Plan(**json.loads(told["plan"])))
        program()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 (the test sees what escaped)
        import traceback  # noqa: PLC0415

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
