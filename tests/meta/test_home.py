"""Whoever runs the tests finds nothing of them at home, nor where sockets usually are."""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path
from subprocess import run

USUAL = """
import os
from sekisho.adapters.hosts.ssh import control_directory
from sekisho.adapters.job_notes import state_directory
from sekisho.adapters.remembered_directory import cache_directory
from sekisho.config.client import default_file
for place in (control_directory(), *(find({}) for find in (
    state_directory, cache_directory, default_file
))):
    print(place)
"""


def test_what_tests_start_finds_a_home_that_is_nobodys(home_of_nobody: Path) -> None:
    """Kills: a test that finds in a cache what an earlier run has left, and shows nothing."""
    done = run([sys.executable, "-c", USUAL], check=True, capture_output=True, text=True)
    sockets, *others = map(Path, done.stdout.splitlines())
    assert sockets.parent.name.startswith("sk-")
    assert [home_of_nobody in place.parents for place in others] == [True] * 3
    assert home_of_nobody != Path(pwd.getpwuid(os.geteuid()).pw_dir)
