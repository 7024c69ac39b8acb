"""Start processes on this machine through `spawner.py`, which is kept running for the next start.

One request at a time: the spawner has one thread. A spawner that is lost is replaced, and the
request asked again: a wrapper that was started twice runs its command once (its latch).
"""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import anyio
import anyio.to_thread
from anyio.abc import SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from sekisho.adapters.hosts.process_tree import ProcessRef, boot_id
from sekisho.domain.errors import SekishoError, Unavailable

_PROGRAM: Final = Path(__file__).with_name("spawner.py")
_PASSING: Final = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
_LOST: Final = (OSError, anyio.BrokenResourceError, anyio.EndOfStream, anyio.IncompleteRead)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpawnRequest:
    """One process: ``argv[0]`` and ``work_dir`` are absolute, ``env`` is its whole environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    work_dir: str
    max_file_bytes: int | None = None
    max_open_files: int | None = None

    def encode(self) -> bytes:
        limits = {"max_file_bytes": self.max_file_bytes, "max_open_files": self.max_open_files}
        body = json.dumps(
            {
                "argv": self.argv,
                "env": dict(self.env),
                "work_dir": self.work_dir,
                "limits": limits,
            }
        ).encode()
        return len(body).to_bytes(4) + body


class LocalSpawner:
    """A client of one spawner process, started when first needed; close it to end that process.

    What it has started lives on. Belongs to one event loop.
    """

    def __init__(self, *, timeout_s: float = 30.0) -> None:
        self._timeout_s = timeout_s
        self._lock = anyio.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stream: SocketStream | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    @property
    def pid(self) -> int | None:
        """The spawner's process id, when there is one."""
        return self._process.pid if self._process is not None else None

    async def spawn(self, request: SpawnRequest) -> ProcessRef:
        """Start ``request`` in a session of its own and return its process.

        Raise Unavailable("launch.unavailable") when the machine has no room or the spawner does
        not answer, SekishoError("launch.failed", step=, error=) when it can never be started so.
        """
        # A cancelled caller must not leave half a frame or an unread reply behind.
        with anyio.CancelScope(shield=True):
            async with self._lock:
                reply = await self._ask(request.encode())
        if "pid" in reply:
            return ProcessRef(reply["pid"], reply["start_ticks"], boot_id())
        failed = Unavailable if reply["errno"] in _PASSING else SekishoError
        code = "launch.unavailable" if failed is Unavailable else "launch.failed"
        error = errno.errorcode.get(reply["errno"], "unknown")
        raise failed(code, step=reply["step"], error=error)

    async def aclose(self) -> None:
        """End the spawner and wait for it."""
        with anyio.CancelScope(shield=True):
            await self._drop()

    async def _ask(self, frame: bytes) -> dict[str, Any]:
        for _ in range(2):
            try:
                with anyio.fail_after(self._timeout_s):
                    return await self._exchange(await self._connected(), frame)
            except TimeoutError:
                await self._drop()
                break
            except _LOST:
                await self._drop()
        raise Unavailable("launch.unavailable", step="spawner", error="unknown")

    async def _exchange(self, stream: SocketStream, frame: bytes) -> dict[str, Any]:
        await stream.send(frame)
        source = BufferedByteReceiveStream(stream)
        size = int.from_bytes(await source.receive_exactly(4))
        reply: dict[str, Any] = json.loads(await source.receive_exactly(size))
        return reply

    async def _connected(self) -> SocketStream:
        if self._stream is not None and self._process is not None and self._process.poll() is None:
            return self._stream
        await self._drop()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await anyio.to_thread.run_sync(_start, theirs)
        self._stream = await SocketStream.from_socket(ours)
        return self._stream

    async def _drop(self) -> None:
        stream, self._stream = self._stream, None
        process, self._process = self._process, None
        if stream is not None:
            await stream.aclose()
        if process is not None:
            await anyio.to_thread.run_sync(_end, process)


def _start(channel: socket.socket) -> subprocess.Popen[bytes]:
    """Start the spawner: no environment, one descriptor, out of the terminal's reach."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", os.fspath(_PROGRAM)],
        stdin=channel.fileno(),
        stdout=subprocess.DEVNULL,
        env={},
        cwd="/",
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for the spawner, whose channel is closed; killing it loses nothing."""
    try:
        process.wait(timeout=2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
