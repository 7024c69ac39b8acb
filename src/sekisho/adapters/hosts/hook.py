"""Programs of this side's own settings that run before and after a job: an argument list, no shell.

A hook has our environment and, in SEKISHO_JOB, SEKISHO_SITE and SEKISHO_HOST, what it is for. It
runs in a directory of its settings: where the user happens to be, a file of the same name may lie.
It is a session of its own, without a terminal: when it takes too long, or we are interrupted, all
that it has started ends with it.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from sekisho.adapters.hosts.ssh_fault import last_line
from sekisho.domain.errors import Unavailable


def run_hook(
    name: str, argv: Sequence[str], cwd: Path, words: Mapping[str, str], timeout_s: float
) -> str:
    """Run the hook to its end in ``cwd`` and return the last line it printed.

    Raise Unavailable(`hook.failed`) when it could not be started, failed, or took too long.
    """
    named = {f"SEKISHO_{key.upper()}": value for key, value in words.items()}
    try:
        hook = subprocess.Popen(
            list(argv),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **named},
            start_new_session=True,
        )
        printed, complained = _heard(hook, timeout_s)
    except subprocess.TimeoutExpired as error:
        raise Unavailable("hook.failed", hook=name, said=f"> {timeout_s:g} s") from error
    except OSError as error:
        said = os.strerror(error.errno or 0)
        raise Unavailable("hook.failed", hook=name, said=said) from error
    if hook.returncode != 0:
        said = last_line(complained.decode("utf-8", "replace"))
        raise Unavailable("hook.failed", hook=name, said=said or str(hook.returncode))
    return last_line(printed.decode("utf-8", "replace"))


def _heard(hook: subprocess.Popen[bytes], timeout_s: float) -> tuple[bytes, bytes]:
    """Return what the hook has said at its end; unless it comes to one, end all that is of it."""
    with hook:
        try:
            return hook.communicate(timeout=timeout_s)
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(hook.pid, signal.SIGKILL)
            raise
