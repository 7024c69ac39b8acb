"""A confined command tries to reach what it was not granted; unconfined, the same tries succeed."""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sekisho.adapters.sandboxes.landlock import LandlockSandbox
from sekisho.domain.errors import UsageError
from sekisho.domain.launch import Sandbox
from tests.hostile.confined_yard import Yard, yard_in

#: Each line is a try of the command to show SECRET, to write OUTSIDE, or to reach PORT. Sh, as an
#: input deck that can run anything would write it.
READS = [
    "cat SECRET",
    "cat < SECRET",
    "cp SECRET got; cat got",
    "mv SECRET got; cat got",
    "ln SECRET got; cat got",
    "ln -s SECRET got; cat got",
    "ln -s / root; cat rootSECRET",
    "ln -s DIR folder; cat folder/secret.txt",
    "cat /proc/self/root/SECRET",
    "cat /proc/self/cwd/../secrets/secret.txt",
    "cat ../secrets/secret.txt",
    "cat ./../secrets/./secret.txt",
    "cd DIR; cat secret.txt",
    "exec 3< SECRET; cat <&3",
    "dd if=SECRET",
    "tar cf - DIR | cat",
    "sed -n p SECRET",
    "head -c 100 SECRET",
    "od -c SECRET | tr -d ' \\\\n0-9'",
    "base64 SECRET | base64 -d",
    "tee got < SECRET",
    "sh -c 'sh -c \"cat SECRET\"'",
    "setsid cat SECRET",
    "nohup cat SECRET",
    "env -i cat SECRET",
    "(cat SECRET &) ; sleep 0.2",
    "find DIR -type f -exec cat {} +",
    "grep -r . DIR",
    "PYTHON -c \"print(open('SECRET').read())\"",
    "PYTHON -c \"import os; os.chroot('DIR'); print(open('/secret.txt').read())\"",
    "PYTHON -c \"import os; d=os.open('DIR', os.O_PATH); "
    "print(os.read(os.open('secret.txt', 0, dir_fd=d), 99))\"",
    "PYTHON -c \"import mmap,os; f=os.open('SECRET', 0); print(mmap.mmap(f, 0, prot=1)[:])\"",
    "PYTHON -c \"import shutil; shutil.copytree('DIR', 'c'); print(open('c/secret.txt').read())\"",
    "xargs -a SECRET echo",
    ". SECRET",
]


@dataclass
class Sentinel:
    """Listens on this machine and counts who comes."""

    port: int = 0
    seen: list[object] = field(default_factory=list)


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return yard_in(tmp_path)


@pytest.mark.parametrize("line", READS)
def test_no_try_shows_what_was_not_granted(yard: Yard, line: str) -> None:
    assert yard.canary not in yard.run(line, Sandbox())
    assert yard.secret.read_text() == f"{yard.canary}\n"


def test_unconfined_most_of_the_same_tries_succeed(tmp_path: Path) -> None:
    """The positive control: were the sandbox off, the tests above would see the canary."""
    leaks = 0
    for n, line in enumerate(READS):
        place = tmp_path / str(n)
        place.mkdir()
        yard = yard_in(place)
        leaks += yard.canary in yard.run(line, None)
    assert leaks >= 25


def test_what_is_granted_can_be_read_and_not_written(yard: Yard) -> None:
    grants = Sandbox(read=(str(yard.secret.parent),))
    assert yard.canary in yard.run("cat SECRET", grants)
    yard.run("echo changed > SECRET; rm -f SECRET; touch DIR/new", grants)
    assert yard.secret.read_text() == f"{yard.canary}\n"
    assert not (yard.secret.parent / "new").exists()


def test_what_is_granted_for_writing_can_be_written(yard: Yard) -> None:
    yard.run("echo changed > SECRET", Sandbox(write=(str(yard.secret.parent),)))
    assert yard.secret.read_text() == "changed\n"


@pytest.mark.parametrize(
    "line",
    ["echo x > DIR/new", "touch DIR/new", "mkdir DIR/new", "ln -s /etc DIR/new", "rm SECRET",
     "mv SECRET DIR/new", "truncate -s 0 SECRET", "echo x >> SECRET", "mkfifo DIR/new",
     "echo x > ../new; mv ../new DIR/new", "cp /bin/true DIR/new", "sh -c 'echo x > DIR/new'"],
)  # fmt: skip
def test_nothing_is_written_outside(yard: Yard, line: str) -> None:
    before = sorted(p.name for p in yard.secret.parent.parent.rglob("*"))
    yard.run(line, Sandbox())
    assert sorted(p.name for p in yard.secret.parent.parent.rglob("*")) == before
    assert yard.secret.read_text() == f"{yard.canary}\n"


#: What a program needs of these to be one, `confine.SYSTEM`, is looked at there.
NEEDED = {"usr", "lib", "lib32", "lib64", "libx32", "bin", "sbin", "proc", "sys", "dev", "etc"}


def test_nothing_of_the_system_but_what_programs_need_is_seen(yard: Yard) -> None:
    """Kills: a folder too much in what every command may read."""
    places = [str(place) for place in Path("/").iterdir() if place.name not in NEEDED]
    places += ["/etc", "/proc", "/sys", "/dev", "/sys/kernel", "/proc/sys", "/dev/shm"]
    places += ["/etc/passwd", "/etc/group", "/etc/hosts", "/etc/resolv.conf", "/etc/ssl/certs"]
    places += ["/proc/version", "/proc/1/status", "/proc/mounts/"]
    look = '{ [ -d "$place" ] && ls "$place/" || cat "$place"; } > /dev/null 2>&1 && echo "$place"'
    line = f"for place in {' '.join(map(shlex.quote, places))}; do {look}; done"
    assert {"/etc", "/etc/passwd", "/tmp"} <= set(yard.run(line, None).split())
    assert yard.run(line, Sandbox()).strip() == ""


@pytest.mark.parametrize("device", ["null", "zero", "full", "random", "urandom"])
def test_the_devices_that_programs_count_on_can_be_opened_for_both(yard: Yard, device: str) -> None:
    assert yard.run(f"exec 3<> /dev/{device} && echo opened", Sandbox()).strip() == "opened"


@pytest.fixture
def sentinel() -> Iterator[Sentinel]:
    made = Sentinel()
    with socket.create_server(("127.0.0.1", 0)) as server:
        made.port = server.getsockname()[1]

        def listen() -> None:
            while True:
                try:
                    connection, address = server.accept()
                except OSError:
                    return
                connection.close()
                made.seen.append(address)

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield made
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


CALL = (
    "PYTHON -c \"import socket; socket.create_connection(('127.0.0.1', {port}), 2); print('in')\""
)


def test_no_connection_is_made_without_a_grant(yard: Yard, sentinel: Sentinel) -> None:
    assert "PermissionError" in yard.run(CALL.format(port=sentinel.port), Sandbox())
    assert sentinel.seen == []
    assert "in\n" in yard.run(CALL.format(port=sentinel.port), None)  # the control


#: Ways to a TCP port past what Landlock sees of a connection.
DETOURS = {
    "MPTCP, which falls back to TCP": "s=socket(2, 1, 262); s.connect(at); s.send(b'in')",
    "TCP Fast Open": "s=socket(2, 1); s.sendto(b'in', 0x20000000, at)",
    "TCP Fast Open by sendmsg": "s=socket(2, 1); s.sendmsg([b'in'], [], 0x20000000, at)",
}
DETOUR = "PYTHON -c \"from socket import socket; at=('127.0.0.1', {port}); {way}; print('went')\""


@pytest.mark.parametrize("way", DETOURS)
def test_there_is_no_way_around_the_rules_of_ports(
    yard: Yard, sentinel: Sentinel, way: str
) -> None:
    line = DETOUR.format(port=sentinel.port, way=DETOURS[way])
    assert "PermissionError" in yard.run(line, Sandbox())
    other = sentinel.port + 1 if sentinel.port < 65_535 else 1
    assert "PermissionError" in yard.run(line, Sandbox(connect=(other,)))
    assert sentinel.seen == []
    assert "went\n" in yard.run(line, None)  # the control


SOCKETS = ["17, 3", "16, 3", "2, 2", "10, 2", "2, 3, 1", "1, 1", "1, 2", "40, 1", "2, 1, 132"]


@pytest.mark.parametrize("kind", SOCKETS)
def test_no_other_kind_of_socket_is_made(yard: Yard, kind: str) -> None:
    """Datagrams, raw packets, netlink, those of this machine, other protocols."""
    line = f"PYTHON -c 'import socket; socket.socket({kind})'"
    assert "PermissionError" in yard.run(line, Sandbox(connect=(80,)))
    assert "PermissionError" not in yard.run(line, Sandbox(network=True)) or os.geteuid() != 0


@pytest.mark.parametrize("name", ["DIR/socket", "\\0sekisho-{any}"])
def test_programs_of_this_machine_are_not_talked_to(yard: Yard, name: str) -> None:
    """A message bus or a container engine would start anything, outside."""
    name = name.format(any=secrets.token_hex(8))
    line = f"PYTHON -c \"from socket import socket; socket(1).connect('{name}'); print('in')\""
    place = name.replace("DIR", str(yard.secret.parent)).replace("\\0", "\0")
    with socket.socket(socket.AF_UNIX) as bus:
        bus.bind(place)
        bus.listen()
        assert "PermissionError" in yard.run(line, Sandbox())
        assert "in\n" in yard.run(line, None)  # the control


def test_a_pair_of_sockets_is_still_to_be_had(yard: Yard) -> None:
    """It leads to nobody but the command's own processes; event loops need it."""
    assert "Error" not in yard.run(
        "PYTHON -c 'import asyncio; asyncio.run(asyncio.sleep(0))'", Sandbox()
    )


def test_names_can_be_asked_for_where_that_is_granted(yard: Yard) -> None:
    line = "PYTHON -c 'import socket; socket.socket(2, 2); print(1)'"
    assert "1\n" in yard.run(line, Sandbox(connect=(53,)))
    assert "PermissionError" in yard.run(line, Sandbox(connect=(443,)))


KEYS = """
import ctypes, sys
call = ctypes.CDLL(None, use_errno=True).syscall
def add(text):
    return call({add}, b'user', b'sekisho-trial', text, len(text), ctypes.c_int(-4))
def read(key):
    told = ctypes.create_string_buffer(99)
    call({control}, 11, key, told, 99)
    return told.value.decode()
"""
KEY_CALLS = {"x86_64": (248, 250), "ppc64le": (269, 271)}.get(os.uname().machine, (217, 219))


def test_the_accounts_keyrings_are_not_read(yard: Yard) -> None:
    """Tickets of the account may be there."""
    add, control = KEY_CALLS
    text = KEYS.format(add=add, control=control)
    kept: dict[str, Any] = {}
    exec(text, kept)  # noqa: S102 (what the command runs, in this process)
    key = kept["add"](yard.canary.encode())
    assert kept["read"](key) == yard.canary
    try:
        (yard.work / "keys.py").write_text(f"{text}print(read({key}))\n")
        assert yard.canary not in yard.run("PYTHON keys.py", Sandbox(network=True))
        assert yard.canary not in yard.run("PYTHON keys.py", Sandbox())
        assert yard.canary in yard.run("PYTHON keys.py", None)  # the control
    finally:
        kept["call"](control, 9, key, ctypes.c_int(-4))


def test_no_ring_of_calls_is_made_that_no_filter_sees(yard: Yard) -> None:
    ring = (
        "PYTHON -c 'import ctypes; c=ctypes.CDLL(None, use_errno=True); "
        "print(c.syscall(425, 8, ctypes.create_string_buffer(200)), ctypes.get_errno())'"
    )
    assert "-1 38\n" in yard.run(ring, Sandbox())


MEMORY = """
import ctypes, sys
libc, pid, size = ctypes.CDLL(None, use_errno=True), int(sys.argv[1]), 4096
class Piece(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]
for line in open(f"/proc/{pid}/maps") if len(sys.argv) < 3 else [sys.argv[2]]:
    first, _, last = line.split()[0].partition("-")
    size = int(last, 16) - int(first, 16)
    told = ctypes.create_string_buffer(size)
    here, there = Piece(ctypes.addressof(told), size), Piece(int(first, 16), size)
    if libc.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0) > 0:
        sys.stdout.buffer.write(told.raw)
print(libc.ptrace(16, pid, 0, 0))
"""


def test_the_memory_and_the_files_of_others_are_not_read(yard: Yard) -> None:
    """The agent's own, say, which holds its token: where its memory is would be known."""
    holds = (
        f"import sys; kept = bytes.fromhex({yard.canary.encode().hex()!r}); "
        f"opened = open({str(yard.secret)!r}); print(1, flush=True); sys.stdin.read()"
    )
    pipe, argv = subprocess.PIPE, [sys.executable, "-c", holds]
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, env={}) as other:
        assert other.stdin
        assert other.stdout
        assert other.stdout.readline()
        maps = Path(f"/proc/{other.pid}/maps").read_text().splitlines()
        (heap,) = [line.split()[0] for line in maps if line.endswith("[heap]")]
        (yard.work / "memory.py").write_text(MEMORY)
        tries = [
            f"PYTHON memory.py {other.pid} {heap}",
            f"PYTHON memory.py {other.pid}",
            f"cat /proc/{other.pid}/fd/3",
            f"cat /proc/{other.pid}/root/{yard.secret}",
            f"cat /proc/{other.pid}/cwd/{yard.secret}",
        ]
        for line in tries:
            assert yard.canary not in yard.run(line, Sandbox(network=True)), line
        assert "0\n" not in yard.run(tries[0], Sandbox())  # nor is it traced
        for line in tries[1:4]:
            assert yard.canary in yard.run(line, None), line  # the control
        other.kill()


def test_a_granted_port_can_be_reached_and_no_other(yard: Yard, sentinel: Sentinel) -> None:
    assert "in\n" in yard.run(CALL.format(port=sentinel.port), Sandbox(connect=(sentinel.port,)))
    other = Sandbox(connect=(sentinel.port + 1 if sentinel.port < 65_535 else 1,))
    assert "PermissionError" in yard.run(CALL.format(port=sentinel.port), other)


def test_the_command_cannot_open_a_port(yard: Yard) -> None:
    line = "PYTHON -c \"import socket; socket.create_server(('127.0.0.1', 0)); print('open')\""
    assert "open\n" not in yard.run(line, Sandbox())
    assert "open\n" in yard.run(line, Sandbox(network=True))


def test_the_command_cannot_signal_others(yard: Yard) -> None:
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as other:
        yard.run(f"kill -9 {other.pid}", Sandbox())
        assert other.poll() is None
        yard.run(f"kill -9 {other.pid}", None)  # the control
        assert other.wait(10) == -9


def test_the_command_cannot_read_the_environment_of_others(yard: Yard) -> None:
    marked = {"PATH": "/usr/bin:/bin", "MARK": yard.canary}
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, env=marked) as other:
        assert other.stdin is not None
        line = f"cat /proc/{other.pid}/environ"
        assert yard.canary not in yard.run(line, Sandbox())
        assert yard.canary in yard.run(line, None)  # the control
        other.kill()


def test_exit_code_environment_and_arguments_pass_through_unchanged(yard: Yard) -> None:
    argv = LandlockSandbox().wrap(
        ("/bin/sh", "-c", 'env; printf "<%s>" "$@"; exit 7', "sh", "a b", "*", "é", ""),
        str(yard.work),
        Sandbox(),
    )
    done = subprocess.run(
        argv, env={"ONE": "1", "PYTHONPATH": "/nowhere"}, capture_output=True, check=False
    )
    assert done.returncode == 7
    printed = done.stdout.decode()
    assert printed.endswith("<a b><*><é><>")
    names = {line.partition("=")[0] for line in printed.splitlines() if "=" in line}
    assert names <= {"ONE", "PYTHONPATH", "PWD", "_", "OLDPWD", "SHLVL"}
    assert "ONE=1" in printed


def test_where_the_rules_cannot_be_set_nothing_is_run(yard: Yard) -> None:
    """A seccomp-like refusal, played by a kernel call number that does not exist."""
    script = LandlockSandbox().wrap(("/usr/bin/touch", "ran"), str(yard.work), Sandbox())[3]
    broken = yard.work.parent / "confine.py"
    broken.write_text(Path(script).read_text().replace("444, 445, 446", "9999, 9998, 9997"))
    grants = {"read": [], "write": [str(yard.work)], "network": False, "connect": []}
    told = json.dumps(grants | {"shared_memory": False})
    argv = [sys.executable, "-I", "-S", str(broken), told, "--", "/usr/bin/touch", "ran"]
    done = subprocess.run(argv, cwd=yard.work, check=False)
    assert done.returncode == 126
    assert not (yard.work / "ran").exists()


@pytest.mark.parametrize("path", ["relative", "", "../up", "/a/../b", "/nul\0"])
def test_a_grant_is_an_absolute_path(path: str) -> None:
    with pytest.raises(UsageError):
        Sandbox(read=(path,))


@pytest.mark.parametrize("path", ["/", "//", "/./", "/proc", "/proc/", "//proc", "/./proc/."])
def test_a_grant_of_everything_is_none(path: str) -> None:
    with pytest.raises(UsageError) as caught:
        Sandbox(read=(path,))
    assert caught.value.code == "sandbox.too_wide"


@pytest.mark.parametrize("port", [0, -1, 65_536])
def test_a_granted_port_is_one(port: int) -> None:
    with pytest.raises(UsageError):
        Sandbox(connect=(port,))


def test_this_machine_can_enforce_what_is_tested_here() -> None:
    assert LandlockSandbox().faults(Sandbox()) == []
    assert os.uname().sysname == "Linux"
