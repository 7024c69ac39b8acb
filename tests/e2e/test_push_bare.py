"""A bare site as its users type it: the check, a failure's log, and hosts that come and go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.client.spec import JobSpec
from sekisho.domain.errors import Unavailable
from sekisho.domain.job import JobState
from tests.bare_site import SITE, BareWorld, bare_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[BareWorld]:
    with bare_world(tmp_path) as made:
        made.program("noop", "true")
        made.program("fail", "echo the reason; exit 4")
        yield made


def hook(world: BareWorld, name: str, text: str) -> None:
    file = world.place / f"{name}-hook.sh"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    world.extra += f'{name} = ["{file}"]\n'


def notes(world: BareWorld) -> list[str]:
    return (world.place / "hooks").read_text().split()


def test_the_check_says_what_works(world: BareWorld) -> None:
    with world.sekisho("site", "check", SITE, "--json") as process:
        out, _ = process.communicate(timeout=60)
    told = json.loads(out)
    assert process.returncode == 0
    assert told["ok"]
    checks = [entry["check"] for entry in told["checks"]]
    assert checks == ["login", "latency", "clock", "rsync", "work"]


def test_the_check_names_the_fault(world: BareWorld) -> None:
    (world.server.place / "known_hosts").unlink()
    with world.sekisho("site", "check", SITE) as process:
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "[ssh.host_key]" in out
    assert f"ssh -o StrictHostKeyChecking=ask {SITE}" in out


def test_a_failed_programs_log_is_shown_between_two_lines(world: BareWorld) -> None:
    with world.sekisho("run", SITE, "fail") as process:
        _, err = process.communicate(timeout=60)
    lines = err.splitlines()
    begin = next(n for n, line in enumerate(lines) if "remote side log" in line)
    assert lines[begin + 1] == "the reason"
    assert set(lines[begin + 2]) == {"-"}
    assert process.returncode == 4


def test_a_host_that_a_hook_names_is_used_and_released(world: BareWorld, tmp_path: Path) -> None:
    hook(
        world,
        "before",
        f'echo "before $SEKISHO_JOB" >>{world.place}/hooks; echo booting\necho {SITE}',
    )
    hook(world, "after", f'echo "after $SEKISHO_JOB $SEKISHO_HOST" >>{world.place}/hooks')
    with world.client() as client:
        job = client.submit(JobSpec(site=SITE, command="noop"))
        assert job.result(tmp_path / "r").state == JobState.SUCCEEDED
    assert notes(world) == ["before", job.id, "after", job.id, SITE]


def test_a_failed_job_is_released_too(world: BareWorld, tmp_path: Path) -> None:
    hook(world, "after", f"echo after >>{world.place}/hooks")
    with world.client() as client:
        job = client.submit(JobSpec(site=SITE, command="fail"))
        assert job.wait().state == JobState.FAILED
        job.fetch(tmp_path / "r")
    assert notes(world) == ["after"]


def test_a_before_that_fails_is_told_and_released(world: BareWorld) -> None:
    hook(world, "before", "echo no machines left >&2; exit 1")
    hook(world, "after", f"echo after >>{world.place}/hooks")
    with world.client() as client, pytest.raises(Unavailable) as failed:
        client.submit(JobSpec(site=SITE, command="noop"))
    assert (failed.value.code, failed.value.params["said"]) == ("hook.failed", "no machines left")
    assert notes(world) == ["after"]


def test_a_release_that_failed_stays_owed_until_it_works(world: BareWorld, tmp_path: Path) -> None:
    hook(world, "after", f"echo after >>{world.place}/hooks; [ -e {world.place}/open ]")
    with world.client() as client:
        client.submit(JobSpec(site=SITE, command="noop")).result(tmp_path / "r")
        failed = len(notes(world))
        assert failed >= 3
        with world.sekisho("site", "check", SITE) as process:
            assert "hook.failed" in process.communicate(timeout=60)[0]
        (world.place / "open").touch()
        client.submit(JobSpec(site=SITE, command="noop")).result(tmp_path / "r")
    assert len(notes(world)) == failed + 2  # the one that was owed, and its own
