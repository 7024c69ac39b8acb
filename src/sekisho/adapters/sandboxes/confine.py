"""Become a command that can reach only what it is granted. Run as a script, before the command.

    python -I -S confine.py GRANTS_JSON -- ARGV...

Landlock (Linux 5.13; TCP from 6.7, signals from 6.12) holds files and TCP. A filter of system calls
(seccomp) closes the ways past it: sockets of other kinds (UDP, those of this machine, MPTCP, which
ends as TCP), connecting by the first bytes sent (TCP Fast Open), rings of calls (io_uring), and
what an account's processes have in common: keyrings, System V memory and queues, word of changes in
folders, each other's limits and priorities. Both hold for this process and all that it starts,
cannot be taken back, and need no privilege. The environment passes through untouched.
Exit status 126: the rules could not be set, and nothing was run. Standard library only.
Facts: the kernel's documentation, `userspace-api/landlock` and `userspace-api/seccomp_filter`.
"""

from __future__ import annotations

import ctypes
import json
import os
import stat
import struct
import sys

CREATE, ADD, RESTRICT = 444, 445, 446  # the same on every architecture
PATH_BENEATH, NET_PORT = 1, 2
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
READ = EXECUTE | READ_FILE | READ_DIR
CONNECT_TCP, BIND_TCP = 2, 1
SCOPE_ALL = 3  # abstract sockets and signals of others
NO_NEW_PRIVILEGES = 38
FAILED = 126
#: What a program needs to start and to be one: read and execute only.
SYSTEM = (
    *("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives"),
    *("/etc/localtime", "/etc/ssl/openssl.cnf", "/proc/self", "/proc/cpuinfo", "/proc/meminfo"),
    *("/proc/stat", "/proc/sys/kernel/osrelease", "/sys/devices/system/cpu"),
)
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_libc = ctypes.CDLL(None, use_errno=True)

SET_SECCOMP, FILTER = 22, 2
LOAD, AND, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
ALLOW, ERROR = 0x7FFF_0000, 0x0005_0000
NOT_PERMITTED, DENIED, NO_SUCH_CALL = 1, 13, 38
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # where they are in what a filter sees
FAST_OPEN = 0x2000_0000
IPV4_6, STREAM, DATAGRAM = (2, 10), 1, 2
TCP, UDP = (0, 6), (0, 17)
NAMES_PORT = 53
IO_URING = 425  # the same on every architecture
SEND_FLAGS = (3, 2, 3)  # which argument has them
OF_A_USER = (2, 3)  # what says that a priority is for all processes of an account
X32 = 0x4000_0000  # from here on, calls of an ABI that shares its architecture with x86-64


class Calls:
    """The numbers of calls on one architecture, from its ``asm/unistd.h``.

    ``sockets``: socket, sendto, sendmsg, sendmmsg, and where there is one socketcall, whose
    arguments no filter sees. ``own``: setpriority, ioprio_set, prlimit64. ``never``: keyrings,
    inotify, fanotify, perf_event_open, bpf. ``system_v``: all but shmdt.
    """

    def __init__(
        self,
        architecture: int,
        sockets: tuple[int, ...],
        own: tuple[int, int, int],
        never: tuple[int, ...],
        system_v: tuple[int, ...],
    ) -> None:
        self.architecture, self.never, self.system_v = architecture, never, system_v
        self.socket, self.sends, self.socketcall = sockets[0], sockets[1:4], sockets[4:]
        self.priorities, self.limits = own[:2], own[2]


_X86_64 = Calls(
    0xC000003E,
    sockets=(41, 44, 46, 307),
    own=(141, 251, 302),
    never=(248, 249, 250, 253, 294, 300, 298, 321),
    system_v=(29, 30, 31, 64, 65, 66, 68, 69, 70, 71, 220),
)
#: With the one call for all of System V (ipc), as POWER has it, and semtimedop_time64.
_I386 = Calls(
    0x40000003,
    sockets=(359, 369, 370, 345, 102),
    own=(97, 289, 340),
    never=(286, 287, 288, 291, 332, 338, 336, 357),
    system_v=(117, 393, 394, 395, 396, 397, 399, 400, 401, 402, 420),
)
_GENERIC = (
    (198, 206, 211, 269),
    (140, 30, 261),
    (217, 218, 219, 26, 262, 241, 280),
    (186, 187, 188, 189, 190, 191, 192, 193, 194, 195, 196),
)
_AARCH64, _RISCV64 = Calls(0xC00000B7, *_GENERIC), Calls(0xC00000F3, *_GENERIC)
_PPC64LE = Calls(
    0xC0000015,
    sockets=(326, 335, 341, 349, 102),
    own=(97, 273, 325),
    never=(269, 270, 271, 275, 318, 323, 319, 361),
    system_v=(117, 392, 393, 394, 395, 396, 397, 399, 400, 401, 402),
)
#: By machine: what its kernel runs.
KNOWN = {
    "x86_64": (_X86_64, _I386),
    "aarch64": (_AARCH64,),
    "riscv64": (_RISCV64,),
    "ppc64le": (_PPC64LE,),
}
Step = tuple[int, int, int, int]


def can_filter() -> bool:
    """Say whether this kernel has filters, on a machine whose calls are known here."""
    return os.uname().machine in KNOWN and os.path.exists("/proc/sys/kernel/seccomp")


def abi() -> int:
    """Return the version of Landlock that this kernel offers; 0: none."""
    return max(0, int(_libc.syscall(CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))))


def confine(read: list[str], write: list[str], *, network: bool, connect: list[int]) -> None:
    """Hold this process to the grants, for good; raise OSError when that cannot be done."""
    version = abi()
    if version < 1 or (version < 4 and not network):
        raise OSError(95, "landlock")
    everything = (
        1 << (13 if version < 2 else 14 if version < 3 else 15 if version < 5 else 16)
    ) - 1
    tcp = 0 if network else BIND_TCP | CONNECT_TCP
    attributes = struct.pack("QQQ", everything, tcp, SCOPE_ALL if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _call(CREATE, attributes[:size], ctypes.c_size_t(size), ctypes.c_uint32(0))
    for path in (*SYSTEM, *read):
        _allow(ruleset, path, READ & everything)
    for path in DEVICES:
        _allow(ruleset, path, READ_FILE | WRITE_FILE)
    for path in write:
        _allow(ruleset, path, everything)
    for port in connect if not network else []:
        _call(ADD, ruleset, NET_PORT, struct.pack("QQ", CONNECT_TCP, port), 0)
    if _libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    _call(RESTRICT, ruleset, 0)
    os.close(ruleset)


def close_ways(*, network: bool, names: bool, shared_memory: bool) -> None:
    """Hold this process to files and TCP, as Landlock sees them; raise OSError if it cannot be.

    With ``network`` every socket is free; with ``names``, UDP is, which asks name servers; with
    ``shared_memory``, what System V shares among an account's processes.
    """
    if not can_filter():
        raise OSError(95, "seccomp")
    granted = {"network": network, "names": names, "shared_memory": shared_memory}
    steps = filter_steps(os.uname().machine, **granted)
    packed = b"".join(struct.pack("HBBI", *step) for step in steps)
    text = ctypes.create_string_buffer(packed)
    program = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(text))
    if _libc.prctl(SET_SECCOMP, FILTER, program, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")


def filter_steps(machine: str, *, network: bool, names: bool, shared_memory: bool) -> list[Step]:
    """Return what decides on every call: under each ABI of the machine's kernel, and no other."""
    steps = [
        step
        for calls in KNOWN[machine]
        for step in _rules(calls, network=network, names=names, shared_memory=shared_memory)
    ]
    return [*steps, _refuse(NOT_PERMITTED)]


def _rules(calls: Calls, *, network: bool, names: bool, shared_memory: bool) -> list[Step]:
    """Return what decides on a call of this architecture, and passes over one of another."""
    steps = [(LOAD, 0, 0, NUMBER)]
    if calls is _X86_64:
        steps += [(AT_LEAST, 0, 1, X32), _refuse(NOT_PERMITTED)]
    closed = calls.never if network else (*calls.never, IO_URING, *calls.socketcall)
    closed += () if shared_memory else calls.system_v
    for left, number in enumerate(closed, 1 - len(closed)):  # the last one decides
        steps.append((EQUAL, -left, 0 if left else 1, number))
    steps.append(_refuse(NO_SUCH_CALL))
    steps += _when(calls.limits, _only(0, (0, 0), NOT_PERMITTED))
    for number, user in zip(calls.priorities, OF_A_USER, strict=True):
        whole_account = [_argument(0), *_when(user, [_refuse(NOT_PERMITTED)])]
        steps += _when(number, [*whole_account, *_only(1, (0, 0), NOT_PERMITTED)])
    if not network:
        for number, flags in zip(calls.sends, SEND_FLAGS, strict=True):
            fast = [_argument(flags), (ANY_BIT, 0, 1, FAST_OPEN), _refuse(DENIED)]
            steps += _when(number, [*fast, (RETURN, 0, 0, ALLOW)])
        steps += _when(calls.socket, _sockets(names=names))
    steps.append((RETURN, 0, 0, ALLOW))
    return [(LOAD, 0, 0, ARCHITECTURE), *_when(calls.architecture, steps)]


def _sockets(*, names: bool) -> list[Step]:
    kinds = [_argument(1), (AND, 0, 0, 0xF), *_when(STREAM, _only(2, TCP))]
    if names:
        kinds += _when(DATAGRAM, _only(2, UDP))
    domain = [_argument(0), (EQUAL, 2, 0, IPV4_6[0]), (EQUAL, 1, 0, IPV4_6[1]), _refuse(DENIED)]
    return [*domain, *kinds, _refuse(DENIED)]


def _only(argument: int, values: tuple[int, int], code: int = DENIED) -> list[Step]:
    one, other = values
    ends = [_refuse(code), (RETURN, 0, 0, ALLOW)]
    return [_argument(argument), (EQUAL, 2, 0, one), (EQUAL, 1, 0, other), *ends]


def _when(value: int, steps: list[Step]) -> list[Step]:
    """Return ``steps``, passed over unless ``value`` is what was loaded last."""
    return [(EQUAL, 0, len(steps), value), *steps]


def _argument(number: int) -> Step:
    """Return what loads the lower half of an argument: all of these are C's int, little-endian."""
    return (LOAD, 0, 0, ARGUMENTS + 8 * number)


def _refuse(code: int) -> Step:
    return (RETURN, 0, 0, ERROR | code)


def given_environment() -> dict[bytes, bytes]:
    """Return the environment as it was given to us: Python may have added to its own copy."""
    with open("/proc/self/environ", "rb") as block:
        pairs = [entry.partition(b"=") for entry in block.read().split(b"\0") if entry]
    return {name: value for name, _, value in pairs}


def _allow(ruleset: int, path: str, rights: int) -> None:
    """Grant ``rights`` to ``path`` and what is below it; what is not there grants nothing."""
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= EXECUTE | WRITE_FILE | READ_FILE | (1 << 14) | (1 << 15)
        _call(ADD, ruleset, PATH_BENEATH, struct.pack("=Qi", rights, place), 0)
    finally:
        os.close(place)


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), "landlock")
    return result


def main(argv: list[str]) -> None:
    """Confine this process and become ``argv``; return only when that failed."""
    grants, command = json.loads(argv[0]), argv[2:]
    environment = given_environment()
    network, connect = grants["network"], grants["connect"]
    confine(grants["read"], grants["write"], network=network, connect=connect)
    names, shared_memory = NAMES_PORT in connect, grants["shared_memory"]
    close_ways(network=network, names=names, shared_memory=shared_memory)
    os.execve(command[0], command, environment)  # noqa: S606 (no shell: that is the point)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (OSError, ValueError, LookupError):
        os._exit(FAILED)
