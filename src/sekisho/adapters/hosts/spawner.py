"""Start wrappers of jobs: a small process of one thread, run as a script by `spawn_local`.

It exists because a threaded agent must not fork, and because what a job inherits should be decided
by one page of code: a new session, no descriptor, no signal setting, no environment of the agent.
A request and a reply are frames on standard input's socket: four bytes of length, then JSON.
When the agent ends, its end of the socket closes and this process ends; the jobs live on.
A child that we did not start was orphaned when a job killed its wrapper: it is killed at once.
Standard library only, few modules: its memory is copied for every start.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import select
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

CHANNEL = 0
PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)
#: Signals that Python, or whoever started us, has set to be ignored: an exec would keep that.
_IGNORED = [n for n in signal.valid_signals() if signal.getsignal(n) is signal.SIG_IGN]


def serve() -> None:
    """Answer requests until the agent's end of the channel closes."""
    deaths = _deaths()
    _adopt_orphans()
    gc.freeze()
    wrappers: set[int] = set()
    ready = select.poll()
    ready.register(CHANNEL, select.POLLIN)
    ready.register(deaths, select.POLLIN)
    while True:
        woken = {descriptor for descriptor, _ in ready.poll()}
        if deaths in woken:
            os.read(deaths, 4096)
            _collect(wrappers)
        if CHANNEL in woken and not _answer(wrappers):
            return


def _answer(wrappers: set[int]) -> bool:
    """Serve one request; False when the agent is gone."""
    head = _read(4)
    body = _read(int.from_bytes(head)) if head else None
    if body is None:
        return False
    answer = _spawn(json.loads(body))
    if isinstance(pid := answer.get("pid"), int):
        wrappers.add(pid)
    reply = json.dumps(answer).encode()
    _write(len(reply).to_bytes(4) + reply)
    return True


def _deaths() -> int:
    """Return a descriptor that becomes readable when a child has died."""
    readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return readable


def _collect(wrappers: set[int]) -> None:
    """Take away our dead, and kill what we did not start; its death brings us here again."""
    with suppress(ChildProcessError):
        while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
            wrappers.discard(pid)
    for pid in _children() - wrappers:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)  # ours until waited for: never a reused pid


def _children() -> set[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as children:
            return {int(pid) for pid in children.read().split()}
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return set()


def _spawn(request: dict[str, Any]) -> dict[str, object]:
    """Start one wrapper; say its process id and start time, or the step and errno that failed."""
    status_read, status_write = os.pipe()
    try:
        pid = os.fork()
    except OSError as fault:
        os.close(status_read)
        os.close(status_write)
        return {"step": "fork", "errno": fault.errno}
    if pid == 0:
        _become(request, status_write)
    os.close(status_write)
    with open(status_read, "rb") as status:  # ends when the child's exec closes its copy
        words = status.read().split()
    if len(words) == 1:
        return {"pid": pid, "start_ticks": int(words[0])}
    step, errno = (words[1].decode(), int(words[2])) if len(words) == 3 else ("exec", 0)
    return {"step": step, "errno": errno}


def _become(request: dict[str, Any], status: int) -> None:
    """In the child: take every step, tell our start time, turn into the wrapper. Never returns."""
    step = "start"
    try:
        os.write(status, _start_ticks())
        for name, take in _steps(request, status):
            step = name
            take()
    except OSError as fault:
        os.write(status, f" {step} {fault.errno or 0}".encode())
    finally:
        os._exit(127)


def _steps(request: dict[str, Any], status: int) -> list[tuple[str, Callable[[], object]]]:
    argv = [_bytes(word) for word in request["argv"]]
    env = {_bytes(name): _bytes(value) for name, value in request["env"].items()}
    return [
        ("session", os.setsid),
        ("signals", _default_signals),
        ("subreaper", _adopt_orphans),
        ("work_dir", lambda: os.chdir(_bytes(request["work_dir"]))),
        ("descriptors", lambda: _close_all_but(status)),
        ("limits", lambda: _limit(request["limits"])),
        ("exec", lambda: os.execve(argv[0], argv, env)),
    ]


def _start_ticks() -> bytes:
    with open("/proc/self/stat", "rb", buffering=0) as stat:
        return stat.read(4096).rpartition(b")")[2].split()[19]


def _default_signals() -> None:
    """Ignore no signal and block none; what is handled is the default again after the exec."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _adopt_orphans() -> None:
    """Make what is orphaned below us our child, not init's; the setting survives exec."""
    if _LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _close_all_but(status: int) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.closerange(3, status)
    os.closerange(status + 1, os.sysconf("SC_OPEN_MAX"))


def _limit(limits: dict[str, int | None]) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for kind, wanted in (
        (resource.RLIMIT_FSIZE, limits["max_file_bytes"]),
        (resource.RLIMIT_NOFILE, limits["max_open_files"]),
    ):
        hard = resource.getrlimit(kind)[1]
        if wanted is not None and (hard == resource.RLIM_INFINITY or wanted < hard):
            resource.setrlimit(kind, (wanted, wanted))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _read(size: int) -> bytes | None:
    """Return exactly ``size`` bytes, or None when the agent is gone."""
    parts: list[bytes] = []
    while size > 0:
        part = os.read(CHANNEL, min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _write(frame: bytes) -> None:
    while frame:
        frame = frame[os.write(CHANNEL, frame) :]


if __name__ == "__main__":
    with suppress(BrokenPipeError, ConnectionResetError):
        serve()
