"""A turnstile between sshd and what it starts: every step is told to a test, which lets it on.

As a program, `python -I turnstile.py DOOR [ARGV...]`, it stands in a key's forced command: with an
ARGV in front of a gate, whose calls are its steps, else in front of any command, which is one. A
step is told before it begins; after it is done and before its answer is said; and amid what it
carries, if it is long. DOOR is a socket: one line for each moment, and its end lets go on.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, NoReturn

#: A transfer has a middle when it carries more than this, in bytes or in data packets of a gate.
AMID_BYTES: Final = 256 << 10
AMID_PACKETS: Final = 2
_HEAD: Final = struct.Struct(">cI")
_PIECE: Final = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Where a job is: `before`, `amid` or `after` a step, and which processes carry it there.

    ``child`` is what the turnstile has started, 0 before that. ``line`` is like no other's: numbers
    of processes come back.
    """

    name: str
    line: str
    sshd: int
    turnstile: int
    child: int


@contextmanager
def door(place: Path, heard: Callable[[Moment], object]) -> Iterator[None]:
    """Answer the turnstiles whose door is ``place``; whoever told a moment waits for ``heard``."""
    answering: list[threading.Thread] = []

    def answer(caller: socket.socket) -> None:
        with caller, caller.makefile("r") as line:
            if (said := line.readline()).endswith("\n"):  # else it was killed before it spoke
                heard(Moment(**json.loads(said)))

    def accept(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                answering.append(threading.Thread(target=answer, args=(listener.accept()[0],)))
                answering[-1].start()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen(16)
        accepting = threading.Thread(target=accept, args=(listener,))
        accepting.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join(30)
            for thread in answering:
                thread.join(30)


# -------------------------------------------------------------------------- the program


class Turnstile:
    """One command or one gate, with its streams through our hands."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.line = os.urandom(8).hex()
        self.sshd = os.getppid()
        self.step = ""
        self.amid = False
        self.child: subprocess.Popen[bytes] | None = None

    def tell(self, when: str) -> None:
        child = 0 if self.child is None else self.child.pid
        told = {
            "name": f"{when} {self.step}",
            "line": self.line,
            "sshd": self.sshd,
            "turnstile": os.getpid(),
            "child": child,
        }
        with suppress(OSError), socket.socket(socket.AF_UNIX) as line:
            line.connect(self.place)
            line.sendall(json.dumps(told).encode() + b"\n")
            line.recv(1)

    def start(self, argv: list[str]) -> tuple[IO[bytes], IO[bytes]]:
        pipe = subprocess.PIPE
        self.child = subprocess.Popen(argv, stdin=pipe, stdout=pipe, bufsize=0)
        assert self.child.stdin
        assert self.child.stdout
        return self.child.stdin, self.child.stdout

    def end(self) -> NoReturn:
        """End as the child did."""
        assert self.child
        code = self.child.wait()
        if code < 0:
            os.kill(os.getpid(), -code if -code == signal.SIGKILL else signal.SIGTERM)
        os._exit(code)

    # a command: all that it says is heard before any of it is passed on, but for transfers

    def command(self, line: str) -> NoReturn:
        self.step = step_of(line)
        carries = self.step in ("push", "bring")
        self.tell("before")
        mouth, ear = self.start(["/bin/sh", "-c", f"exec {line}"])
        threading.Thread(target=self.carry, args=(0, mouth.fileno(), mouth), daemon=True).start()
        if carries:
            self.carry(ear.fileno(), 1, ear)
        said = b"" if carries else ear.read()
        self.tell("after")
        _write(1, said)
        self.end()

    def carry(self, source: int, sink: int, end: IO[bytes]) -> None:
        passed = 0
        with suppress(OSError):
            while piece := os.read(source, _PIECE):
                passed += len(piece)
                if passed > AMID_BYTES and not self.amid:
                    self.amid = True
                    self.tell("amid")
                _write(sink, piece)
        end.close()

    # a gate: what is said before an answer's first packet is passed on is said after its call

    def gate(self, argv: list[str]) -> NoReturn:
        mouth, ear = self.start(argv)
        threading.Thread(target=self.ask, args=(sys.stdin.buffer, mouth), daemon=True).start()
        with suppress(OSError):
            self.pass_on(ear, 1, "fetch", lambda _: self.tell("after"))
        ear.close()
        self.end()

    def ask(self, incoming: IO[bytes], mouth: IO[bytes]) -> None:
        def called(payload: bytes) -> None:
            self.step = json.loads(payload)["verb"]
            self.amid = False
            self.tell("before")

        with suppress(OSError):
            self.pass_on(incoming, mouth.fileno(), "put", called)
        mouth.close()

    def pass_on(
        self, source: IO[bytes], sink: int, carrying: str, on_message: Callable[[bytes], None]
    ) -> None:
        count = 0
        while len(head := _read(source, _HEAD.size)) == _HEAD.size:
            kind, length = _HEAD.unpack(head)
            payload = _read(source, length)
            count = count + 1 if kind == b"D" else 0
            if kind == b"M":
                on_message(payload)
            elif count == AMID_PACKETS and self.step == carrying:
                self.tell("amid")
            _write(sink, head + payload)


def step_of(line: str) -> str:
    """Return what a command line of a bare site's client is for."""
    if "rsync" in line[:20]:
        return "bring" if "--sender" in line else "push"
    found = re.search(r"' 'sekisho' '([a-z]+)' ", line)
    return found[1] if found else "other"


def _read(source: IO[bytes], size: int) -> bytes:
    """Return so many bytes, or fewer at the end."""
    found = bytearray()
    while len(found) < size and (piece := source.read(size - len(found))):
        found += piece
    return bytes(found)


def _write(fd: int, data: bytes) -> None:
    rest: Any = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


if __name__ == "__main__":
    one = Turnstile(sys.argv[1])
    if sys.argv[2:]:
        one.gate(sys.argv[2:])
    one.command(os.environ["SSH_ORIGINAL_COMMAND"])
