"""A process that held a token leaves no picture of its memory, also where core files are wanted."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

#: Core files are wanted; then the entry runs, and a look at the limit takes the place of its work.
_ENTRIES = {
    "sekisho": """
import sekisho.cli.main as entry
entry.run = look
entry.main()
""",
    "an old program": """
import sekisho.cli.mint as entry
entry.ended(lambda *_given, **_named: look(), ["x"], hidden=True)
""",
    "the gate": """
import sekisho.cli.gate as entry
entry._serve = lambda _folder, _user: look()
entry.main(["--dir", "/nowhere", "--submitter", "taro"])
""",
}
_WANTED = """
import resource
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
def look():
    print(resource.getrlimit(resource.RLIMIT_CORE), flush=True)
    return 0
"""


def limits_in(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _WANTED + program],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout.strip() or done.stderr


@pytest.mark.parametrize("entry", _ENTRIES)
def test_no_core_file_is_left(entry: str) -> None:
    assert limits_in(_ENTRIES[entry]) == "(0, 0)"


def test_without_an_entry_one_would_be() -> None:
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    assert limits_in("look()") == str((hard, hard))
