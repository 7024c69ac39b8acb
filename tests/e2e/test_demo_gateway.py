"""The demo's telling through a gateway: agent, ssh and Slurm, each of them real."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.e2e.test_demo import CHECKS, SECONDS, start

#: A program of the gateway itself does not pry into another host's files.
PRYING = {"confined", "not_confined"}
MORE = {"slurm_ran", "gateway_login", "gateway_clean"}


def ended(demo: subprocess.Popen[str]) -> tuple[str, str]:
    return demo.communicate(timeout=SECONDS)


def test_every_check_of_the_story_holds_behind_a_gateway() -> None:
    demo = start(Path("/tmp"), "--gateway", "--json")  # a socket's path must be short
    out, story = ended(demo)
    told = json.loads(out)
    assert demo.returncode == 0, story
    assert {check["name"] for check in told["checks"]} == (CHECKS - PRYING) | MORE
    assert "COMPLETED" in story
    assert "host: hpc: rsync" in story


def test_it_is_a_telling_of_its_own() -> None:
    for other in ("--ssh", "--slurm"):
        demo = start(Path("/tmp"), "--gateway", other)
        _, said = ended(demo)
        assert demo.returncode == 2
        assert "--gateway is a telling of its own" in said
