"""Hosts that come and go: what is run before and after a job, at both kinds of site."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.client.errors import CommandFailed, JobRefused
from sekisho.client.spec import JobSpec
from sekisho.compose.client import client
from sekisho.domain.errors import ConfigError, Unavailable
from sekisho.domain.job import JobState
from tests.forked import run
from tests.gated import SITE as GATED
from tests.two_sites import BARE, HOSTS, TwoSites, a_double, two_sites


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[TwoSites]:
    with two_sites(tmp_path) as made:
        yield made


def hook(sites: TwoSites, name: str, text: str) -> None:
    """Have ``text`` run at every site's jobs; it may say something in the file `hooks`."""
    file = sites.place / f"{name}-hook.sh"
    file.write_text(f"#!/bin/sh\n{text.replace('@', str(sites.place))}\n")
    file.chmod(0o755)
    sites.extra = {
        site: f'{sites.extra.get(site, "")}{name} = ["{file}", "{HOSTS[site]}"]\n' for site in HOSTS
    }


def notes(sites: TwoSites) -> list[str]:
    return (sites.place / "hooks").read_text().splitlines()


@pytest.mark.parametrize("site", HOSTS)
def test_a_host_that_a_hook_names_is_used_and_released(
    sites: TwoSites, tmp_path: Path, site: str
) -> None:
    hook(
        sites, "before", 'echo "before $SEKISHO_JOB $SEKISHO_SITE" >>@/hooks; echo booting\necho $1'
    )
    hook(sites, "after", 'echo "after $SEKISHO_JOB $SEKISHO_HOST" >>@/hooks')
    sites.hosts_named = False
    with sites.client() as client:
        job = client.submit(a_double(tmp_path, site))
        assert notes(sites) == [f"before {job.id} {site}"]
        assert job.result(tmp_path / "r").state == JobState.SUCCEEDED
        assert notes(sites) == [f"before {job.id} {site}", f"after {job.id} {HOSTS[site]}"]


@pytest.mark.parametrize("site", HOSTS)
def test_the_host_is_kept_until_the_files_are_here(
    sites: TwoSites, tmp_path: Path, site: str
) -> None:
    hook(sites, "after", "echo after >>@/hooks")
    with sites.client() as client:
        job = client.submit(a_double(tmp_path, site))
        job.wait()
        assert not (sites.place / "hooks").exists()
        job.fetch(tmp_path / "r")
    assert notes(sites) == ["after"]


@pytest.mark.parametrize("site", HOSTS)
def test_a_failed_job_is_released_too(sites: TwoSites, tmp_path: Path, site: str) -> None:
    hook(sites, "after", "echo after >>@/hooks")
    with sites.client() as client, pytest.raises(CommandFailed) as failed:
        client.submit(JobSpec(site=site, command="fail")).result(tmp_path / "r")
    assert failed.value.result.exit_code == 4
    assert notes(sites) == ["after"]


def test_a_refused_job_is_released_too(sites: TwoSites, tmp_path: Path) -> None:
    hook(sites, "after", "echo after >>@/hooks")
    with sites.client() as client, pytest.raises(JobRefused):
        client.submit(JobSpec(site=GATED, command="nonsense")).result(tmp_path / "r")
    assert notes(sites) == ["after"]


@pytest.mark.parametrize("site", HOSTS)
def test_a_cancelled_job_is_released_too(sites: TwoSites, site: str) -> None:
    hook(sites, "after", "echo after >>@/hooks")
    with sites.client() as client:
        job = client.submit(JobSpec(site=site, command="wait"))
        job.cancel()
        assert job.wait(60).state == JobState.CANCELLED
    assert notes(sites) == ["after"]


@pytest.mark.parametrize("site", HOSTS)
def test_a_before_that_fails_is_told_and_released(sites: TwoSites, site: str) -> None:
    hook(sites, "before", "echo no machines left >&2; exit 1")
    hook(sites, "after", "echo after >>@/hooks")
    with sites.client() as client, pytest.raises(Unavailable) as failed:
        client.submit(JobSpec(site=site, command="noop"))
    assert (failed.value.code, failed.value.params["said"]) == ("hook.failed", "no machines left")
    assert notes(sites) == ["after"]


@pytest.mark.parametrize("site", HOSTS)
def test_a_release_that_failed_stays_owed_until_it_works(
    sites: TwoSites, tmp_path: Path, site: str
) -> None:
    hook(sites, "after", "echo after >>@/hooks; [ -e @/open ]")
    with sites.client() as client:
        client.submit(JobSpec(site=site, command="noop")).result(tmp_path / "r")
        failed = len(notes(sites))
        assert failed >= 3
        with sites.sekisho("site", "check", site) as process:
            assert "hook.failed" in process.communicate(timeout=60)[0]
        (sites.place / "open").touch()
        client.submit(JobSpec(site=site, command="noop")).result(tmp_path / "r")
    assert len(notes(sites)) == failed + 2  # the one that was owed, and its own


@pytest.mark.parametrize("named", ["boot", "./boot"])
def test_a_file_where_the_user_is_does_not_stand_in_for_a_hook(
    sites: TwoSites, tmp_path: Path, named: str
) -> None:
    """Even where PATH begins with the directory that one is in."""
    here = tmp_path / "downloaded"
    here.mkdir()
    for place, said in ((here, "false"), (sites.place, "true")):
        (place / "boot").write_text(f"#!/bin/sh\necho {said} $(pwd) >>{sites.place}/hooks\n")
        (place / "boot").chmod(0o755)
    path = f".:{os.environ['PATH']}"
    subprocess.run([named], cwd=here, env={"PATH": path}, check=True)
    assert notes(sites) == [f"false {here}"]  # the control
    sites.extra = dict.fromkeys(HOSTS, f'after = ["{named}"]\n')
    sites.settle()
    words = ("run", BARE, "noop", "--into", tmp_path / "r")
    run(words, cwd=here, env={**sites.environ(), "PATH": path}, timeout=60).check_returncode()
    assert notes(sites)[1:] == [f"true {sites.place}"]


def test_hooks_of_settings_that_others_could_have_written_are_not_run(sites: TwoSites) -> None:
    hook(sites, "before", "echo before >>@/hooks")
    sites.settle()
    sites.config.chmod(0o666)
    with pytest.raises(ConfigError), client(sites.config):
        pass
    done = run(["run", BARE, "noop"], env=sites.environ(), timeout=60)
    assert done.returncode == 78
    sites.config.chmod(0o600)
    assert "client.open_to_others" in done.stderr
    assert not (sites.place / "hooks").exists()
