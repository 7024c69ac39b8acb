"""The agent's machine as a `Host`: short commands, each in its own session, ended when late."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from typing import BinaryIO, Final

import anyio
from anyio.abc import ByteReceiveStream, Process

from sekisho.domain.errors import SekishoError, Unavailable
from sekisho.site.desk import together
from sekisho.site.host import MAX_ANSWER_BYTES, STANDARD_ENVIRONMENT, Answer

_NOT_FOUND: Final = 127
_SIGNAL_BASE: Final = 128


class LocalHost:
    """Runs commands as this process's user, with an environment made from nothing."""

    async def run(
        self,
        argv: tuple[str, ...],
        *,
        stdin: bytes = b"",
        cwd: str = "/",
        env: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
    ) -> Answer:
        try:
            with _readable(stdin) as text:
                process = await anyio.open_process(
                    argv,
                    stdin=text,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    cwd=cwd,
                    env={**_account(), **STANDARD_ENVIRONMENT, **(env or {})},
                    start_new_session=True,
                )
        except (FileNotFoundError, PermissionError, NotADirectoryError) as fault:
            return Answer(_NOT_FOUND, b"", str(fault.strerror).encode())
        except OSError as fault:
            raise Unavailable("host.unreachable", why=os.strerror(fault.errno or 0)) from fault
        try:
            with anyio.fail_after(timeout_s):
                return await _ended(process)
        except TimeoutError:
            raise Unavailable("host.timeout", program=argv[0], seconds=timeout_s) from None
        finally:
            if process.returncode is None:
                _kill(process)
            with anyio.CancelScope(shield=True):
                await process.aclose()


def _readable(data: bytes) -> BinaryIO:
    """Return a file in memory that holds ``data``: whoever does not read it breaks no pipe."""
    text = open(os.memfd_create("stdin"), "w+b")  # noqa: SIM115 the caller closes it
    text.write(data)
    text.seek(0)
    return text


async def _ended(process: Process) -> Answer:
    """Drain ``process`` to its end."""
    said: dict[str, bytes] = {}

    async def take(name: str, stream: ByteReceiveStream | None) -> None:
        said[name] = await _taken(stream)

    async with together() as group:
        group.start_soon(take, "stdout", process.stdout)
        group.start_soon(take, "stderr", process.stderr)
        code = await process.wait()
    return Answer(code if code >= 0 else _SIGNAL_BASE - code, said["stdout"], said["stderr"])


async def _taken(stream: ByteReceiveStream | None) -> bytes:
    whole = bytearray()
    if stream is not None:
        async for part in stream:
            whole += part
            if len(whole) > MAX_ANSWER_BYTES:
                raise SekishoError("host.too_much", limit=MAX_ANSWER_BYTES)
    return bytes(whole)


def _account() -> dict[str, str]:
    """Return what a login would say of the account; an account without a name has none."""
    try:
        entry = pwd.getpwuid(os.getuid())
    except KeyError:
        return {"HOME": "/"}
    return {"HOME": entry.pw_dir, "LOGNAME": entry.pw_name, "USER": entry.pw_name}


def _kill(process: Process) -> None:
    """Kill the command with all of its session: none of it must go on behind our back."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
