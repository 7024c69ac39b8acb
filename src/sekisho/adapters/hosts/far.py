"""A computing host behind ssh: constant scripts run there by its shell, answers read strictly.

Rule 1: nothing is asked of the login shell but to start ``sh`` with one constant word, which any
        shell understands; script and words come through stdin, so that no `ps` there shows them.
Rule 2: an answer is what stands between two marks with a fresh nonce: banners and chatty start-up
        files come before the first. Without the second mark nobody knows what was carried out.
Rule 3: a call is short and its answer bounded. Whatever goes on there, goes on by itself.
Rule 4: no fault of the line is an end: all of them are Unavailable, and grow rarer while they last.
"""

from __future__ import annotations

import os
import random
import re
import secrets
import selectors
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Final

import anyio
import anyio.to_thread

from sekisho.adapters.hosts.quote import quoted
from sekisho.adapters.hosts.ssh import SshHost
from sekisho.adapters.hosts.ssh_fault import SSH_FAULT, fault_of, last_line
from sekisho.domain.backoff import delay
from sekisho.domain.errors import SekishoError, TooLarge, Unavailable, Unreachable
from sekisho.site.host import MAX_ANSWER_BYTES, STANDARD_ENVIRONMENT, Answer

#: Reads a script up to a line that is its nonce, then runs it; a script that was cut off never
#: runs. No single quote, newline, `!` or backslash but one: every login shell passes it on.
_LOADER: Final = (
    'n=$(printf "\\nx");n=${n%%x};s=;while IFS= read -r l;do case $l in %s)eval "$s";exit;;esac;'
    "s=$s$l$n;done;exit 76"
)
_FRAME: Final = """\
LC_ALL=C
export LC_ALL
printf '\\n%s<\\n' {nonce}
printf '\\n%s<\\n' {nonce} >&2
(
set -- {words}
{script}
)
printf '\\n%s>%d\\n' {nonce} "$?"
"""
#: One command with an environment made from nothing but what a login says of the account.
_RUN: Final = """\
cd -- "$1" 2>/dev/null || exit 127
shift
name=${LOGNAME:-$(id -un)}
exec env -i HOME="${HOME:-/}" LOGNAME="$name" USER="$name" "$@"
"""
_SHELL: Final = "sh"
_COMMENT: Final = re.compile(r"^\s*(#.*)?\n", re.MULTILINE)
#: What start-up files may print around an answer.
_NOISE_BYTES: Final = 256 << 10
_DICE: Final = random.SystemRandom()


@cache
def script(name: str) -> str:
    """Return one of our scripts as it is sent: without its comments."""
    return _COMMENT.sub("", Path(__file__).with_name(name).read_text("utf-8"))


@dataclass(slots=True)
class FarHost:
    """One computing host as a `Host`, for all threads of one process."""

    ssh: SshHost
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _failures: int = 0
    _fault: SekishoError | None = None
    _not_before: float = 0.0
    #: Its own: a host that does not answer must not keep the site's other threads busy.
    _threads: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(8))
    noisy: bool = False  #: its start-up files print something: no protocol but ours survives that

    @property
    def name(self) -> str:
        return self.ssh.address.host

    async def run(
        self,
        argv: tuple[str, ...],
        *,
        stdin: bytes = b"",
        cwd: str = "/",
        env: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
    ) -> Answer:
        named = {**STANDARD_ENVIRONMENT, **(env or {})}
        words = (cwd, *(f"{name}={value}" for name, value in named.items()), *argv)

        def ask() -> Answer:
            return self.call(_RUN, words, stdin=stdin, timeout_s=timeout_s)

        try:
            return await anyio.to_thread.run_sync(ask, limiter=self._threads)
        except Unavailable as error:
            if error.code != "host.timeout":
                raise
            raise Unavailable("host.timeout", program=argv[0], seconds=timeout_s) from None

    def call(
        self,
        text: str,
        words: Sequence[str] = (),
        *,
        stdin: bytes | Path = b"",
        timeout_s: float = 60.0,
        max_bytes: int = MAX_ANSWER_BYTES,
    ) -> Answer:
        """Run ``text`` there with ``words`` as its arguments, to its end.

        Raise TooLarge when it prints more than ``max_bytes``, Unavailable for all else that is not
        an answer; whether it ran is then unknown.
        """
        nonce = secrets.token_hex(12)
        with self._started(_program(nonce, text, words), nonce, stdin) as process:
            out, said, late = _collected(
                process, time.monotonic() + timeout_s, max_bytes + _NOISE_BYTES
            )
        try:
            return self._framed(nonce, out, said, process.returncode, max_bytes)
        except Unavailable:
            if late:
                raise Unavailable("host.timeout", program=_SHELL, seconds=timeout_s) from None
            raise

    @contextmanager
    def stream(
        self, text: str, words: Sequence[str] = (), *, stdin: bytes = b""
    ) -> Iterator[IO[bytes]]:
        """Give what a script prints, from the first mark on, to be read as it comes.

        Its end is not marked: what is read must tell by itself whether it is whole.
        """
        nonce = secrets.token_hex(12)
        with self._started(_program(nonce, text, words), nonce, stdin) as process:
            if process.stdout is None:
                raise ValueError(process)
            reader = os.fdopen(os.dup(process.stdout.fileno()), "rb", buffering=1 << 20)
            with reader:
                self._skip_to(reader, f"\n{nonce}<\n".encode())
                yield reader

    def _skip_to(self, reader: IO[bytes], mark: bytes) -> None:
        """Read past ``mark``, through the noise before it."""
        seen = b""
        while len(seen) < _NOISE_BYTES and (line := reader.readline(1 << 16)):
            seen += line
            if seen.endswith(mark):
                return
        raise Unreachable("host.unreachable", why=last_line(seen.decode("utf-8", "replace")))

    def connect(self) -> None:
        """See to it that there is a connection; soon after a failure, repeat its fault instead."""
        if self.ssh.connected():
            return
        with self._guard:
            if self._fault is not None and time.monotonic() < self._not_before:
                raise self._passing(self._fault)
            try:
                self.ssh.connect()
            except SekishoError as error:
                self._failures += 1
                self._not_before = time.monotonic() + delay(self._failures, _DICE.random())
                self._fault = error
                raise self._passing(error) from error
            self._failures, self._fault = 0, None

    def _passing(self, error: SekishoError) -> SekishoError:
        """Return ``error`` as one that may pass: people mend keys and configurations."""
        kind = type(error) if isinstance(error, Unavailable) else Unavailable
        return kind(error.code, **error.params)

    @contextmanager
    def _started(
        self, program: str, nonce: str, stdin: bytes | Path
    ) -> Iterator[subprocess.Popen[bytes]]:
        line = quoted([_SHELL, "-c", _LOADER % nonce])
        self.connect()
        with self.ssh.room, tempfile.TemporaryFile(dir=self.ssh.directory) as given:
            given.write(program.encode("utf-8", "surrogateescape"))
            if isinstance(stdin, Path):
                with stdin.open("rb") as source:
                    shutil.copyfileobj(source, given, 1 << 20)
            else:
                given.write(stdin)
            given.seek(0)
            process = subprocess.Popen(
                [*self.ssh.command(), "--", self.name, line],
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            with process:
                try:
                    yield process
                finally:
                    if process.poll() is None:
                        process.kill()

    def _framed(self, nonce: str, out: bytes, said: bytes, status: int, most: int) -> Answer:
        before, begun, rest = out.partition(f"\n{nonce}<\n".encode())
        body, ended, tail = rest.rpartition(f"\n{nonce}>".encode())
        if begun and before:
            self.noisy = True
        if len(body or rest) > most:
            raise TooLarge("host.too_much", limit=most)
        code = re.match(rb"(\d{1,3})\n", tail)
        if not ended or code is None:
            if status == SSH_FAULT or status < 0:
                raise self._passing(fault_of(self.ssh.address, said))
            raise self._strange(said)
        return Answer(int(code[1]), body, said.partition(f"\n{nonce}<\n".encode())[2])

    def _strange(self, said: bytes) -> Unavailable:
        return Unavailable("host.unreachable", why=last_line(said.decode("utf-8", "replace")))


def _program(nonce: str, text: str, words: Sequence[str]) -> str:
    return _FRAME.format(nonce=nonce, words=quoted(words), script=text) + f"{nonce}\n"


def _collected(
    process: subprocess.Popen[bytes], end: float, max_bytes: int
) -> tuple[bytes, bytes, bool]:
    """Return what came on stdout and stderr until both ended, or too much or too late came."""
    streams = {process.stdout: bytearray(), process.stderr: bytearray()}
    out = streams[process.stdout]
    late = False
    with selectors.DefaultSelector() as ready:
        for stream in streams:
            ready.register(stream, selectors.EVENT_READ)  # type: ignore[arg-type]
        while ready.get_map():
            events = ready.select(max(0.0, end - time.monotonic()))
            late = not events
            if late or len(out) > max_bytes:
                process.kill()
                break
            for key, _ in events:
                data = os.read(key.fd, 1 << 16)
                if not data:
                    ready.unregister(key.fileobj)
                kept = streams[key.fileobj]  # type: ignore[index]
                if kept is out or len(kept) < _NOISE_BYTES:
                    kept += data
    process.wait()
    return bytes(out), bytes(streams[process.stderr]), late
