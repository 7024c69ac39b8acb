"""The agent's machine as a `Host`: short commands, each in its own session, ended when late."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import anyio
from anyio.abc import ByteReceiveStream, Process

from sekisho.domain.errors import SekishoError, Unavailable
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
            process = await anyio.open_process(
                argv,
                stdin=subprocess.PIPE,
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
                return await _ended(process, stdin)
        except TimeoutError:
            raise Unavailable("host.timeout", program=argv[0], seconds=timeout_s) from None
        finally:
            if process.returncode is None:
                _kill(process)
            with anyio.CancelScope(shield=True):
                await process.aclose()


async def _ended(process: Process, stdin: bytes) -> Answer:
    """Feed and drain ``process`` to its end."""
    said: dict[str, bytes] = {}

    async def take(name: str, stream: ByteReceiveStream | None) -> None:
        said[name] = await _taken(stream)

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(take, "stdout", process.stdout)
            group.start_soon(take, "stderr", process.stderr)
            if process.stdin is not None:
                with suppress(anyio.BrokenResourceError, ConnectionError):  # it does not listen
                    await process.stdin.send(stdin)
                await process.stdin.aclose()
            code = await process.wait()
    except* SekishoError as faults:
        raise faults.exceptions[0] from None
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
