"""What the processes of one account share: a confined command has it with nobody outside."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sekisho.adapters.sandboxes.landlock import LandlockSandbox
from sekisho.domain.launch import Sandbox
from tests.hostile.confined_yard import Yard, yard_in

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.shmat.restype = ctypes.c_void_p
CREATED, REMOVE, PRIVATE = 0o1600, 0, 0  # for the account alone, as IPC_CREAT makes it; IPC_RMID
HEAD = """
import ctypes, os, resource, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
told = ctypes.create_string_buffer(200)
number, text = int(sys.argv[1]), sys.argv[2].encode()
class Piece(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]
"""
READ_MEMORY = """
at = libc.shmat(number, None, 0)
print(ctypes.string_at(at, 40) if at not in (None, 2**64 - 1) else "none")
"""
READ_QUEUE = "print(libc.msgrcv(number, told, 90, 0, 0o4000), told.raw[8:60])"
ADD = "print(libc.semctl(number, 0, 16, ctypes.c_int(7)))"  # SETVAL
READ_POSIX_QUEUE = "print(libc.mq_receive(libc.mq_open(text, 0), told, 200, None), told.raw[:60])"


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return yard_in(tmp_path)


def tried(yard: Yard, text: str, arguments: str, grants: Sandbox | None) -> str:
    """Run this program of Python in the work directory; return all that it said."""
    program = yard.work / "try.py"
    program.write_text(f"{HEAD}\n{text}\n")
    return yard.run(f"PYTHON try.py {arguments}; rm try.py", grants)


@contextmanager
def memory(canary: str) -> Iterator[int]:
    made = LIBC.shmget(PRIVATE, 4096, CREATED)
    at = LIBC.shmat(made, None, 0)
    try:
        ctypes.memmove(at, canary.encode(), len(canary))
        yield made
    finally:
        LIBC.shmctl(made, REMOVE, None)
        LIBC.shmdt(ctypes.c_void_p(at))


@contextmanager
def queue(canary: str) -> Iterator[int]:
    """Hold the canary once for each of those that take it."""
    made = LIBC.msgget(PRIVATE, CREATED)
    message = ctypes.create_string_buffer(b"\1".ljust(8, b"\0") + canary.encode())
    try:
        for _ in range(3):
            LIBC.msgsnd(made, message, len(canary), 0)
        yield made
    finally:
        LIBC.msgctl(made, REMOVE, None)


CONFINED = [Sandbox(), Sandbox(network=True)]


@pytest.mark.parametrize("grants", CONFINED)
def test_memory_that_others_share_is_not_read(yard: Yard, grants: Sandbox) -> None:
    with memory(yard.canary) as made:
        assert yard.canary not in tried(yard, READ_MEMORY, f"{made} -", grants)
        assert yard.canary in tried(yard, READ_MEMORY, f"{made} -", None)  # the control
        granted = Sandbox(shared_memory=True)
        assert yard.canary in tried(yard, READ_MEMORY, f"{made} -", granted)


@pytest.mark.parametrize("grants", CONFINED)
def test_queues_of_others_are_not_read(yard: Yard, grants: Sandbox) -> None:
    with queue(yard.canary) as made:
        assert yard.canary not in tried(yard, READ_QUEUE, f"{made} -", grants)
        assert yard.canary in tried(yard, READ_QUEUE, f"{made} -", None)  # the control
        granted = Sandbox(shared_memory=True)
        assert yard.canary in tried(yard, READ_QUEUE, f"{made} -", granted)


def test_semaphores_of_others_are_not_set(yard: Yard) -> None:
    made = LIBC.semget(PRIVATE, 1, CREATED)
    try:
        tried(yard, ADD, f"{made} -", Sandbox())
        assert LIBC.semctl(made, 0, 12) == 0  # GETVAL
        tried(yard, ADD, f"{made} -", None)  # the control
        assert LIBC.semctl(made, 0, 12) == 7
    finally:
        LIBC.semctl(made, 0, REMOVE)


def test_nothing_of_system_v_is_made_to_be_found_outside(yard: Yard) -> None:
    """What the command leaves there would go past the rules of outputs."""
    key = 0x5E000000 | os.getpid()
    make = "print(libc.shmget(number, 64, 0o1600), libc.semget(number, 1, 0o1600), "
    line = make + "libc.msgget(number, 0o1600), ctypes.get_errno())"
    try:
        assert "-1 -1 -1 38" in tried(yard, line, f"{key} -", Sandbox())
        assert "-1" not in tried(yard, line, f"{key} -", None)  # the control
    finally:
        LIBC.shmctl(LIBC.shmget(key, 0, 0), REMOVE, None)
        LIBC.semctl(LIBC.semget(key, 0, 0), 0, REMOVE)
        LIBC.msgctl(LIBC.msgget(key, 0), REMOVE, None)


def test_posix_queues_of_others_are_not_read(yard: Yard) -> None:
    name = f"/sekisho-{yard.canary[-16:]}"
    size = (ctypes.c_long * 8)(0, 3, 100)  # of three messages, 100 bytes at most
    opened = LIBC.mq_open(name.encode(), os.O_CREAT | os.O_RDWR, 0o600, size)
    try:
        assert LIBC.mq_send(opened, yard.canary.encode(), len(yard.canary), 0) == 0
        assert yard.canary not in tried(yard, READ_POSIX_QUEUE, f"0 {name}", Sandbox())
        assert yard.canary in tried(yard, READ_POSIX_QUEUE, f"0 {name}", None)  # the control
    finally:
        LIBC.mq_unlink(name.encode())
        os.close(opened)


@contextmanager
def neighbour() -> Iterator[int]:
    """Run another process of the account, outside, in a group of its own; give its number."""
    argv = ["/bin/cat"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, process_group=0) as other:
        try:
            yield other.pid
        finally:
            other.kill()


@pytest.mark.parametrize("which", [os.PRIO_PROCESS, os.PRIO_PGRP])
def test_others_are_not_made_slower(yard: Yard, which: int) -> None:
    with neighbour() as other:
        before = os.getpriority(os.PRIO_PROCESS, other)
        line = f"print(libc.setpriority({which}, number, {before + 2}))"
        tried(yard, line, f"{other} -", Sandbox())
        assert os.getpriority(os.PRIO_PROCESS, other) == before
        tried(yard, line, f"{other} -", None)  # the control
        assert os.getpriority(os.PRIO_PROCESS, other) == before + 2


SLOWER_DISK = "print(libc.syscall(number, {}, {}, {}), ctypes.get_errno())"
SET_IO = {"x86_64": 251, "ppc64le": 273}.get(os.uname().machine, 30)
IDLE = 3 << 13


@pytest.mark.parametrize("which", [1, 2])
def test_the_disk_of_others_is_not_made_slower(yard: Yard, which: int) -> None:
    with neighbour() as other:
        line = SLOWER_DISK.format(which, other, IDLE)
        assert "-1 1\n" in tried(yard, line, f"{SET_IO} -", Sandbox())
        assert "0 0\n" in tried(yard, line, f"{SET_IO} -", None)  # the control


def test_the_whole_account_is_not_made_slower(yard: Yard) -> None:
    """Of one that nobody has, where it may be taken."""
    line = (
        "if os.getuid() == 0: os.setuid(number)\n"
        "print(libc.setpriority(2, 0, os.nice(0)), ctypes.get_errno())"
    )
    assert "-1 1\n" in tried(yard, line, "61234 -", Sandbox())
    assert "0 0\n" in tried(yard, line, "61234 -", None)  # the control


def test_the_disk_of_the_whole_account_is_not_made_slower(yard: Yard) -> None:
    """By a class that there is not, which does nothing where it gets through."""
    line = SLOWER_DISK.format(3, 0, 7 << 13)
    assert "-1 1\n" in tried(yard, line, f"{SET_IO} -", Sandbox())
    assert "-1 22\n" in tried(yard, line, f"{SET_IO} -", None)  # the control


def test_its_own_processes_may_be_made_slower(yard: Yard) -> None:
    line = "before = os.nice(0); print('slower by', os.nice(2) - before)"
    assert "slower by 2\n" in tried(yard, line, "0 -", Sandbox())


def test_limits_of_others_are_neither_set_nor_seen(yard: Yard) -> None:
    """No processor time left would end the agent, as a signal does."""
    line = "print(resource.prlimit(number, resource.RLIMIT_CORE, (0, 0)))"
    with neighbour() as other:
        before = (4096, resource.getrlimit(resource.RLIMIT_CORE)[1])
        resource.prlimit(other, resource.RLIMIT_CORE, before)
        assert "PermissionError" in tried(yard, line, f"{other} -", Sandbox(network=True))
        assert resource.prlimit(other, resource.RLIMIT_CORE) == before
        tried(yard, line, f"{other} -", None)  # the control
        assert resource.prlimit(other, resource.RLIMIT_CORE) == (0, 0)


def test_its_own_limits_may_be_set(yard: Yard) -> None:
    line = "resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); print('set')"
    assert "set\n" in tried(yard, line, "0 -", Sandbox())


WATCH = """
watch = libc.inotify_init1(0o4000)
print("watched", libc.inotify_add_watch(watch, text, 0x100), flush=True)
input()
print(os.read(watch, 999) if watch >= 0 else "none", flush=True)
"""


@pytest.mark.parametrize("confined", [True, False])
def test_folders_that_may_not_be_listed_are_not_watched_either(yard: Yard, confined: bool) -> None:
    """A name in one may tell as much as what is in the file; unconfined is the control."""
    (yard.work / "watch.py").write_text(HEAD + WATCH)
    argv: tuple[str, ...] = ("/usr/bin/python3", "watch.py", "0", str(yard.secret.parent))
    if confined:
        argv = LandlockSandbox().wrap(argv, str(yard.work), Sandbox(network=True))
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, cwd=yard.work) as watcher:
        assert watcher.stdout is not None
        assert "watched" in watcher.stdout.readline()
        (yard.secret.parent / f"{yard.canary}.txt").touch()
        said, _ = watcher.communicate("\n")
    assert (yard.canary in said) is not confined


#: With no arguments that would do anything: only whether there is such a call.
KERNEL = {
    "x86_64": {"bpf": 321, "perf_event_open": 298, "fanotify_init": 300},
    "ppc64le": {"bpf": 361, "perf_event_open": 319, "fanotify_init": 323},
}.get(os.uname().machine, {"bpf": 280, "perf_event_open": 241, "fanotify_init": 262})


@pytest.mark.parametrize("call", KERNEL)
def test_there_is_no_looking_into_the_kernel(yard: Yard, call: str) -> None:
    """Of use to root above all, to whom the kernel shows every process that way."""
    line = "print(libc.syscall(number, -1, 0, 0, 0, 0), ctypes.get_errno())"
    assert "-1 38\n" in tried(yard, line, f"{KERNEL[call]} -", Sandbox(network=True))
    assert "-1 38\n" not in tried(yard, line, f"{KERNEL[call]} -", None)  # the control


TAKE = """
opened = libc.syscall(434, number, 0)
print("taken", libc.syscall(438, opened, 0, 0), "sent", libc.syscall(424, opened, 0, None, 0))
"""


def test_descriptors_of_others_are_not_taken(yard: Yard) -> None:
    """Nor is a signal sent by one."""
    with neighbour() as other:
        assert "taken -1 sent -1\n" in tried(yard, TAKE, f"{other} -", Sandbox(network=True))
        assert "-1" not in tried(yard, TAKE, f"{other} -", None)  # the control


MOUNT = """
everything = 0x10000000 | 0x00020000  # CLONE_NEWUSER, CLONE_NEWNS
made = 0 if libc.unshare(everything) == 0 else libc.unshare(0x00020000)
print("mounted", libc.mount(b"none", text, b"tmpfs", 0, None))
"""


def test_nothing_is_mounted_over_a_file_that_others_read(yard: Yard) -> None:
    """In a user namespace of its own, where an account may: else as root."""
    (yard.work / "place").mkdir()
    place = yard.work / "place"
    assert "mounted -1\n" in tried(yard, MOUNT, f"0 {place}", Sandbox(network=True))
    assert "mounted 0\n" in tried(yard, MOUNT, f"0 {place}", None)  # the control
