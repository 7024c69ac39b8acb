"""What runs on this machine, and what of it belongs to one job. Linux: read from /proc.

Rules: a process is named by pid, start time and boot, so that a reused pid is never taken for it;
a signal goes through a process descriptor, looked at again after it was opened; a wrapper is never
signalled by us, so that it can write the exit record; what is dead but not yet collected is dead.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from math import ceil
from pathlib import Path
from typing import Final

WRAPPER: Final = Path(__file__).with_name("wrapper.sh")
_MARK: Final = b"CALC_DIR="
_MAX_READ: Final = 4 << 20
_STOP_ROUNDS: Final = 30
_PAUSE_S: Final = 0.002
_GRACE_S: Final = 0.5

Table = Mapping[int, "Process"]


@dataclass(frozen=True, slots=True)
class ProcessRef:
    """One process for ever: its id, its start in clock ticks after boot, and the boot."""

    pid: int
    start_ticks: int
    boot_id: str

    def encode(self) -> str:
        return f"{self.pid}:{self.start_ticks}:{self.boot_id}"

    @classmethod
    def decode(cls, text: str) -> ProcessRef:
        """Return the reference that ``encode`` made ``text`` of, or raise ValueError."""
        pid, start_ticks, boot = text.split(":")
        return cls(int(pid), int(start_ticks), boot)


@dataclass(frozen=True, slots=True)
class Process:
    """One row of the process table."""

    pid: int
    parent: int
    session: int
    terminal: bool
    start_ticks: int
    dead: bool


@dataclass(frozen=True, slots=True)
class Trace:
    """What tells the processes of one job from all others: its wrapper and its work directory."""

    wrapper: ProcessRef
    work_dir: str


@dataclass(frozen=True, slots=True)
class Wrapper:
    """A running wrapper, with what its command line and current directory say."""

    process: ProcessRef
    control_dir: str
    work_dir: str


@cache
def boot_id() -> str:
    """Return the name of this machine's boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def booted_at() -> int:
    """Return when this machine was started, in 1/100 s since 1970 by its clock of now.

    Rounded up: with an uptime that is rounded down it gives no moment before the true one.
    """
    return ceil((time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)) * 100) + 1


def look(pid: int) -> Process | None:
    """Return what is under ``pid`` now."""
    line = _read(f"/proc/{pid}/stat", 4096)
    if not line:
        return None
    # counted behind the name, which may hold blanks and brackets
    word = line.rpartition(b")")[2].split()
    dead = word[0] in b"ZX" and int(word[17]) <= 1  # a dead leader may have living threads
    return Process(pid, int(word[1]), int(word[3]), word[4] != b"0", int(word[19]), dead)


def table() -> dict[int, Process]:
    """Return all processes."""
    seen = (look(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {process.pid: process for process in seen if process is not None}


def alive(ref: ProcessRef) -> bool:
    """Say whether exactly this process still runs."""
    process = look(ref.pid) if ref.boot_id == boot_id() else None
    return process is not None and process.start_ticks == ref.start_ticks and not process.dead


def members(trace: Trace, rows: Table) -> list[Process]:
    """Return the job's living processes without its wrapper, wherever they have gone.

    While the wrapper lives it is the ancestor of all. When it was killed: by its session, which is
    the wrapper's pid, and for those that left it, by their first environment (CALC_DIR) or their
    current directory; and with each of them all its descendants.
    """
    if trace.wrapper.boot_id != boot_id():
        return []
    rows = {
        pid: row
        for pid, row in rows.items()
        if row.start_ticks >= trace.wrapper.start_ticks and pid != os.getpid()
    }
    found = _with_descendants(rows, {p for p, row in rows.items() if _by_kin(trace, row, rows)})
    strays = {p for p, row in rows.items() if p not in found and _by_mark(trace, row)}
    found |= _with_descendants(rows, strays)
    return [rows[pid] for pid in sorted(found) if pid != trace.wrapper.pid and not rows[pid].dead]


def find_wrapper(token: str) -> Wrapper | None:
    """Return the wrapper that runs with ``token``."""
    for row in table().values():
        if row.session != row.pid or row.dead:
            continue
        words = _read(f"/proc/{row.pid}/cmdline").split(b"\0")
        names = [i for i, word in enumerate(words) if word.endswith(b"/" + WRAPPER.name.encode())]
        if not names or words[names[0] + 2 : names[0] + 3] != [token.encode()]:
            continue
        with suppress(OSError):
            ref = ProcessRef(row.pid, row.start_ticks, boot_id())
            return Wrapper(ref, os.fsdecode(words[names[0] + 1]), _work_dir(row.pid))
    return None


def terminate(trace: Trace) -> None:
    """Ask every process of the job to end."""
    for process in members(trace, table()):
        send(process, signal.SIGTERM)


def kill(trace: Trace, within_s: float) -> bool:
    """End every process of the job; say whether all and the wrapper were seen dead in time.

    A wrapper that lives ends by itself what is left after one blow, and then writes the record with
    a few programs, which are not to be hit: it gets time before the next. One that has not come
    to start the command is met by the next; one that the job has stopped is woken.
    """
    deadline = time.monotonic() + within_s
    while _strike(trace) or alive(trace.wrapper):
        next_blow = time.monotonic() + _GRACE_S
        time.sleep(_PAUSE_S)
        while alive(trace.wrapper) and time.monotonic() < min(next_blow, deadline):
            time.sleep(_PAUSE_S)
        if time.monotonic() >= deadline:
            return False
    return True


def open_process(pid: int) -> int | None:
    """Return a descriptor of the process, readable at its end; None before Linux 5.3.

    Raise ProcessLookupError when there is none.
    """
    try:
        return os.pidfd_open(pid)
    except OSError as fault:
        if fault.errno in {errno.ENOSYS, errno.EPERM, errno.EINVAL}:
            return None
        raise


def send(process: Process, number: int, hold: Callable[[int], int | None] = open_process) -> None:
    """Signal exactly this process; nothing when it is gone or not ours."""
    with suppress(ProcessLookupError, PermissionError):
        descriptor = hold(process.pid)
        try:
            now = look(process.pid)
            if now is None or now.start_ticks != process.start_ticks:
                return
            if descriptor is None:
                os.kill(process.pid, number)
            else:
                signal.pidfd_send_signal(descriptor, number)
        finally:
            if descriptor is not None:
                os.close(descriptor)


def _strike(trace: Trace) -> bool:
    """Kill the job's processes of this moment; False when there are none.

    All are stopped before any is killed: what is stopped forks no more, and fills the user's
    process limit meanwhile.
    """
    stopped: dict[tuple[int, int], Process] = {}
    for _ in range(_STOP_ROUNDS):
        found = {(p.pid, p.start_ticks): p for p in members(trace, table())}
        fresh = found.keys() - stopped.keys()
        for key in fresh:
            send(found[key], signal.SIGSTOP)
        stopped |= found
        if not fresh:
            break
    for process in stopped.values():
        send(process, signal.SIGKILL)
    wrapper = look(trace.wrapper.pid)
    if wrapper is not None and alive(trace.wrapper):
        send(wrapper, signal.SIGCONT)
    return bool(stopped)


def _by_kin(trace: Trace, row: Process, rows: Table) -> bool:
    """By parent or session, unless another process has the wrapper's pid by now."""
    holder = rows.get(trace.wrapper.pid)
    if holder is not None and holder.start_ticks != trace.wrapper.start_ticks:
        return False
    return trace.wrapper.pid in {row.parent, row.session}


def _environment(pid: int) -> list[bytes]:
    return _read(f"/proc/{pid}/environ").split(b"\0")


def _work_dir(pid: int) -> str:
    """Return CALC_DIR as it was given, or else the current directory, which has no links."""
    given = (word[len(_MARK) :] for word in _environment(pid) if word.startswith(_MARK))
    return os.fsdecode(next(given, b"")) or os.readlink(f"/proc/{pid}/cwd")


def _by_mark(trace: Trace, row: Process) -> bool:
    """By environment, or by place when it has no terminal: a person may look around there."""
    if _MARK + os.fsencode(trace.work_dir) in _environment(row.pid):
        return True
    if row.terminal:
        return False
    try:
        place = Path(os.readlink(f"/proc/{row.pid}/cwd").removesuffix(" (deleted)"))
    except OSError:
        return False
    return place.is_relative_to(Path(trace.work_dir).resolve())


def _with_descendants(rows: Table, roots: Collection[int]) -> set[int]:
    children: dict[int, list[int]] = {}
    for row in rows.values():
        children.setdefault(row.parent, []).append(row.pid)
    return set(_walk(children, roots))


def _walk(children: Mapping[int, list[int]], roots: Collection[int]) -> Iterator[int]:
    waiting, seen = list(roots), set(roots)
    while waiting:
        pid = waiting.pop()
        yield pid
        fresh = [child for child in children.get(pid, ()) if child not in seen]
        seen.update(fresh)
        waiting.extend(fresh)


def _read(path: str, max_bytes: int = _MAX_READ) -> bytes:
    """Return the file's bytes; nothing when the process is gone or belongs to somebody else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, max_bytes)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
