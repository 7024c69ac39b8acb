"""The demo's telling in push mode: its story, its end, and what it says when a part is missing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from examples.demo import proof
from tests.e2e.test_demo import ROOT, SECONDS, start

CHECKS = {
    "key_bound",
    "way_checked",
    "came_back",
    "life",
    "curious",
    "refuse_file",
    "refuse_value",
    "refuse_range",
    "refuse_parameter",
    "refuse_command",
    "confined",
    "not_confined",
    "one_login",
    "cut_survived",
    "key_shell",
    "key_copy",
    "key_forward",
    "log_tells",
    "log_verifies",
    "ssh_no_leak",
    "found_inside",
    "found_result",
    "no_port",
    "ssh_port_found",
    "bare_all",
    "bare_bound",
    "bare_word",
    "bare_found",
    "plain_key",
    "ssh_stopped",
    "nothing_runs",
}


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_every_check_of_the_story_holds_and_nothing_is_left(tmp_path: Path, lang: str) -> None:
    demo = start(tmp_path, "--ssh", "--json", "--lang", lang)
    out, story = demo.communicate(timeout=SECONDS)
    told = json.loads(out)
    assert demo.returncode == 0, story
    assert told["ok"]
    assert {check["name"] for check in told["checks"]} == CHECKS
    assert 1e2 < told["life_cycles"] < 1e9
    assert not list(tmp_path.iterdir())
    assert not proof.left_of(tmp_path, set())


def test_a_demo_that_is_stopped_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    demo = start(tmp_path, "--ssh")
    assert demo.stdout is not None
    assert next(line for line in demo.stdout if "sekisho submit" in line)
    demo.send_signal(signal.SIGTERM)
    demo.communicate(timeout=SECONDS)
    assert demo.returncode == 1
    end = time.monotonic() + 20
    while left := proof.processes_of(tmp_path):
        assert time.monotonic() < end, left
    assert not list(tmp_path.iterdir())


def test_what_is_missing_is_told_with_the_line_that_installs_it(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "examples.demo", "--ssh", "--lang", "en"],
        cwd=ROOT,
        env=os.environ | {"PATH": str(tmp_path), "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert told.returncode == 69
    assert "rsync" in told.stdout
    assert "apt-get install" in told.stdout
    assert "openssh-server" in told.stdout
