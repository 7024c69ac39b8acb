"""The demo's telling through a batch system."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples.demo.slurm import missing_programs
from tests.e2e.test_demo import CHECKS, start

pytestmark = pytest.mark.time_limit(600)
SECONDS = 300


def test_every_check_of_the_story_holds_through_slurm() -> None:
    demo = start(Path("/tmp"), "--slurm", "--json")  # a socket's path must be short
    out, story = demo.communicate(timeout=SECONDS)
    told = json.loads(out)
    assert demo.returncode == 0, story
    assert {check["name"] for check in told["checks"]} == CHECKS | {"slurm_ran"}
    assert "COMPLETED" in story


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("examples.demo.slurm._SBIN", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    assert set(missing_programs()) >= {"slurmctld", "sbatch"}
