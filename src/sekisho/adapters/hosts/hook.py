"""Programs of this side's own settings that run before and after a job: an argument list, no shell.

A hook has our environment and, in SEKISHO_JOB, SEKISHO_SITE and SEKISHO_HOST, what it is for. It
runs in a directory of its settings: where the user happens to be, a file of the same name may lie.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
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
        ended = subprocess.run(
            list(argv),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**os.environ, **named},
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable("hook.failed", hook=name, said=f"> {timeout_s:g} s") from error
    except OSError as error:
        said = os.strerror(error.errno or 0)
        raise Unavailable("hook.failed", hook=name, said=said) from error
    if ended.returncode != 0:
        said = last_line(ended.stderr.decode("utf-8", "replace"))
        raise Unavailable("hook.failed", hook=name, said=said or str(ended.returncode))
    return last_line(ended.stdout.decode("utf-8", "replace"))
