"""How a child ended is known, also where whoever started us ignored the ends of its children."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: What a job scheduler or a careless parent leaves behind, and a look at the very end.
IGNORING = """
import atexit, signal, subprocess
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
atexit.register(lambda: print(subprocess.run(["false"]).returncode))
"""


def told(end: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", IGNORING + end],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    "entry",
    [
        "from sekisho.cli.main import main; main()",
        "from sekisho.cli.mint_main import push; push()",
        "from sekisho.compose.gate import ignore_terminal_signals as heard; heard()",
    ],
)
def test_how_a_child_ended_is_known(entry: str) -> None:
    assert told(entry) == "1"


def test_ignored_children_all_seem_to_end_well() -> None:
    """The control."""
    assert told("") == "0"
