"""Our programs as processes of their own, forked from one that has loaded them.

To start Python and to load a program costs up to a second of a processor, and the tests start
thousands. What comes from here differs from what users start in nothing else. As users start it, it
is started in the demo, by the documents' pages, where it is installed, and wherever sshd, a batch
system or another program begins it.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

from sekisho.adapters import durable

SEKISHO: Final = "sekisho.cli.main:main"
GATE: Final = "sekisho.cli.gate:run"
#: The same as anybody starts it, in a Python of its own.
AS_TYPED: Final = (sys.executable, "-c", "from sekisho.cli.main import main; main()")
_ROOT: Final = Path(__file__).parents[1]
_MESSAGE: Final = 1 << 20
#: What the process runs that has everything loaded. At an end what was asked for first is last.
_READY: Final = (
    "import atexit, sys; atexit.register(lambda: leave()); "
    "from tests.forked import be, leave, serve; be(serve(int(sys.argv[1])))"
)
_WORDS: Final = 8192  #: room for the words of what it forks, where the system shows them


class Forked:
    """As much of `subprocess.Popen` as the tests need; ``words`` are those behind the name.

    ``first`` is Python that is run before the program.
    """

    def __init__(
        self,
        words: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: int | IO[Any] | None = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        text: bool = True,
        program: str = SEKISHO,
        first: str = "",
    ) -> None:
        self.args = [program, *map(str, words)]
        self.returncode: int | None = None
        self.stdin: IO[Any] | None = None
        self.stdout: IO[Any] | None = None
        self.stderr: IO[Any] | None = None
        self._guard = threading.Lock()
        self._readers: dict[str, threading.Thread] = {}
        self._read: dict[str, Any] = {}
        given: list[int] = []
        try:
            theirs, ours = _end(stdin, 0, write=True)
            given.append(theirs)
            if ours is not None:
                self.stdin = os.fdopen(ours, "w") if text else os.fdopen(ours, "wb", buffering=0)
            for name, wanted, number in (("stdout", stdout, 1), ("stderr", stderr, 2)):
                same = wanted == subprocess.STDOUT
                theirs, ours = _end(given[1] if same else wanted, number, write=False)
                given.append(theirs)
                if ours is not None:
                    setattr(self, name, os.fdopen(ours, "r" if text else "rb"))
            self._ended, told = os.pipe()
            given.append(told)
            request = {
                "words": list(map(str, words)),
                "environ": dict(os.environ if env is None else env),
                "cwd": str(cwd or Path.cwd()),
                "umask": _umask(),
                "program": program,
                "first": first,
            }
            _ready().ask(request, given)
        finally:
            for number in given:
                os.close(number)
        self.pid = int(self._line())

    def _line(self) -> bytes:
        """Return the next line that is told of the process; empty: nobody is left to tell."""
        line = b""
        while not line.endswith(b"\n") and (byte := os.read(self._ended, 1)):
            line += byte
        return line

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            with self._guard:
                if self.returncode is None and _readable(self._ended, left):
                    self.returncode = int(self._line() or -signal.SIGKILL)
                    os.close(self._ended)
                if self.returncode is not None:
                    return self.returncode
            if left == 0:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def communicate(self, given: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        """Return all that it says, as soon as it has ended."""
        end = None if timeout is None else time.monotonic() + timeout
        for name in ("stdout", "stderr"):
            if name not in self._readers and (stream := getattr(self, name)) is not None:
                self._readers[name] = threading.Thread(target=self._drain, args=(name, stream))
                self._readers[name].start()
        if self.stdin is not None and not self.stdin.closed:
            with suppress(BrokenPipeError):
                if given:
                    self.stdin.write(given)
                self.stdin.close()
        for reader in self._readers.values():
            reader.join(None if end is None else max(0.0, end - time.monotonic()))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        self.wait(None if end is None else max(0.0, end - time.monotonic()))
        return self._read.get("stdout"), self._read.get("stderr")

    def _drain(self, name: str, stream: IO[Any]) -> None:
        with stream:
            self._read[name] = stream.read()

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
        self.wait()


def run(
    words: Sequence[str | Path], *, timeout: float, given: str = "", **how: Any
) -> subprocess.CompletedProcess[str]:
    """Run a program of ours to its end; return how it ended and all that it said."""
    pipe = subprocess.PIPE
    with Forked(words, stdin=pipe, stdout=pipe, stderr=pipe, **how) as process:
        try:
            out, err = process.communicate(given, timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
    return subprocess.CompletedProcess(process.args, process.wait(), out, err)


def _end(wanted: int | IO[Any] | None, number: int, *, write: bool) -> tuple[int, int | None]:
    """Return the end of a stream that the process gets, and the one that stays here."""
    if wanted == subprocess.DEVNULL:
        return os.open(os.devnull, os.O_RDWR), None
    if wanted == subprocess.PIPE:
        read, written = os.pipe()
        return (read, written) if write else (written, read)
    place = number if wanted is None else wanted if isinstance(wanted, int) else wanted.fileno()
    return os.dup(place), None


def _umask() -> int:
    text = Path("/proc/self/status").read_text("utf-8")
    return int(next(line for line in text.splitlines() if line.startswith("Umask")).split()[1], 8)


def _readable(number: int, seconds: float | None) -> bool:
    """Say whether there is something to read, soon: others wait for the same process."""
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return bool(poll.poll(50 if seconds is None else min(seconds, 0.05) * 1000))


# --------------------------------------------------------------- the process that is forked from


class _Ready:
    """The one of this test process. It ends with it, and so does all that it has forked."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MESSAGE)
        self.owner = os.getpid()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _READY, str(theirs.fileno()), " " * _WORDS],
                cwd=_ROOT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        atexit.register(self.end)

    def ask(self, request: Mapping[str, Any], streams: Sequence[int]) -> None:
        with self._guard:
            socket.send_fds(self._ours, [json.dumps(request).encode()], streams)

    def end(self) -> None:
        if self.owner == os.getpid():
            self._ours.close()
            self._process.wait(60)


_made: list[_Ready] = []
_making = threading.Lock()


def _ready() -> _Ready:
    with _making:
        if not _made or _made[0].owner != os.getpid():
            _made[:] = [_Ready()]
        return _made[0]


def serve(number: int) -> Callable[[], object]:
    """Fork what is asked for, until nobody is left to ask; return what the process is to run.

    Each forked process comes back from here, as if it had just loaded its program.
    """
    _load()
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    running: dict[int, tuple[int, int]] = {}
    with socket.socket(fileno=number) as asked:
        poll = select.poll()
        poll.register(asked, select.POLLIN)
        while True:
            for ready, _ in poll.poll():
                if ready in running:
                    poll.unregister(ready)
                    _tell_end(*running.pop(ready))
                    os.close(ready)
                    continue
                told, streams, _, _ = socket.recv_fds(asked, _MESSAGE, 4)
                if not told:
                    return lambda: _leave(running)
                if (child := os.fork()) == 0:
                    asked.detach()
                    return _become(json.loads(told), streams)
                for stream in streams[:3]:
                    os.close(stream)
                _say(streams[3], child)
                watched = os.pidfd_open(child)
                running[watched] = (child, streams[3])
                poll.register(watched, select.POLLIN)


_status: list[int] = []


def be(program: Callable[[], object]) -> None:
    """Run the program, and note the status that it ends with."""
    try:
        program()
    except SystemExit as end:
        _status.extend([end.code] if isinstance(end.code, int) else [])
        raise


def leave() -> None:
    """End without taking apart all that was loaded, which takes longer than most programs do."""
    if _status:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:
            return  # Python itself tells of it
        os._exit(_status[0])


def _load() -> None:
    """Load all that a program of ours may need."""
    import sekisho  # noqa: PLC0415

    for module in pkgutil.walk_packages(sekisho.__path__, "sekisho."):
        if not module.name.endswith((".__main__", ".migrations.env")):  # these work at once
            __import__(module.name)
    for name in ("uvloop",):
        __import__(name)


def _say(where: int, number: int) -> None:
    with suppress(BrokenPipeError):
        os.write(where, f"{number}\n".encode())


def _tell_end(child: int, where: int) -> None:
    _say(where, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os.close(where)


def _leave(running: Mapping[int, tuple[int, int]]) -> None:
    for child, _ in running.values():
        os.kill(child, signal.SIGKILL)


def _stream_anew() -> None:
    """Make Python's own streams again: those from before hold what the old ones were."""
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)


def _be_called(words: Sequence[str]) -> None:
    """Let the system show these words as those of this process, where there is room."""
    fields = Path("/proc/self/stat").read_text("utf-8").rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    text = b"\0".join(word.encode("utf-8", "surrogateescape") for word in words)
    ctypes.memmove(start, text[: end - start - 1].ljust(end - start, b"\0"), end - start)


def _become(told: Mapping[str, Any], streams: Sequence[int]) -> Callable[[], object]:
    for number, stream in enumerate(streams[:3]):
        os.dup2(stream, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    _stream_anew()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.umask(told["umask"])
    os.chdir(told["cwd"])
    os.environ.clear()
    os.environ.update(told["environ"])
    time.tzset()
    vars(durable)["_ARMED"] = vars(durable)["_armed"]()  # as when it is loaded
    sys.argv = [told["program"].partition(".")[0], *told["words"]]
    _be_called(sys.argv)
    exec(told["first"], {})  # noqa: S102 (a test's own)
    program: Callable[[], object] = pkgutil.resolve_name(told["program"])
    return program
