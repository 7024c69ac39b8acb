"""Become a command that can reach only what it is granted. Run as a script, before the command.

    python -I -S confine.py GRANTS_JSON -- ARGV...

Landlock (Linux 5.13; TCP from 6.7, signals from 6.12): the rules hold for this process and all that
it starts, cannot be taken back, and need no privilege. The environment passes through untouched.
Exit status 126: the rules could not be set, and nothing was run. Standard library only.
Facts: the kernel's documentation, `userspace-api/landlock`.
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
    confine(grants["read"], grants["write"], network=grants["network"], connect=grants["connect"])
    os.execve(command[0], command, environment)  # noqa: S606 (no shell: that is the point)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (OSError, ValueError, LookupError):
        os._exit(FAILED)
