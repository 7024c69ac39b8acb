"""A hook by itself: how it ends, and that it is given nothing of what its caller reads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sekisho.adapters.hosts.hook import run_hook
from sekisho.domain.errors import Unavailable
from tests.forked import run
from tests.waiting import until


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 4", "4"),
        ("echo quota used up >&2; exit 4", "quota used up"),
        ("sleep 600", "> 0.3 s"),
    ],
)
def test_a_hook_that_fails_says_why(tmp_path: Path, script: str, said: str) -> None:
    seconds = 0.3 if "sleep" in script else 60
    with pytest.raises(Unavailable) as caught:
        run_hook("before", ["/bin/sh", "-c", script], tmp_path, {}, seconds)
    assert caught.value.code == "hook.failed"
    assert caught.value.params == {"hook": "before", "said": said}


def test_a_hook_that_takes_too_long_leaves_nothing_running(tmp_path: Path) -> None:
    script = 'sleep 600 & echo "$!" >child; wait'
    with pytest.raises(Unavailable):
        run_hook("before", ["/bin/sh", "-c", script], tmp_path, {}, 0.5)
    child = Path(f"/proc/{int((tmp_path / 'child').read_text())}")
    until(lambda: not (child / "exe").exists())


def test_a_hook_has_no_terminal(tmp_path: Path) -> None:
    session = run_hook("before", ["/bin/sh", "-c", "cut -d' ' -f6 /proc/$$/stat"], tmp_path, {}, 60)
    assert int(session) != os.getsid(0)


def test_a_hook_reads_nothing_of_what_is_meant_for_its_caller() -> None:
    """Kills: a hook that takes the answer to a question of ours. With a control."""
    calls = (
        "import subprocess, sys; from pathlib import Path; "
        "from sekisho.adapters.hosts.hook import run_hook; "
        "said = run_hook('before', ['/bin/cat'], Path('/'), {}, 60); "
        "rest = subprocess.run(['/bin/cat'], stdout=-1, check=True).stdout; "
        "print(repr(said), rest.decode()); raise SystemExit(0)"
    )
    assert run([], given="an answer", timeout=120, first=calls).stdout == "'' an answer\n"
