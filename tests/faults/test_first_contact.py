"""A host that never answered is given up; one that did is waited for, and one that just starts."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sekisho.client.client import new_job_id
from sekisho.client.spec import JobSpec
from sekisho.domain.errors import Unreachable
from sekisho.domain.job import JobState
from tests.two_sites import HOSTS, TwoSites, two_sites
from tests.waiting import until


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[TwoSites]:
    with two_sites(tmp_path) as made:
        made.extra = dict.fromkeys(HOSTS, "first_contact_s = 0\n")
        yield made


@pytest.mark.parametrize("site", HOSTS)
def test_a_host_that_never_answered_is_given_up_and_the_same_job_is_done_when_it_does(
    sites: TwoSites, site: str
) -> None:
    job, spec = new_job_id(), JobSpec(site=site, command="noop")
    with sites.client() as client:
        sites.house.server.stop()
        with pytest.raises(Unreachable) as told:
            client.submit(spec, job_id=job)
        assert told.value.code == "ssh.unreachable"
        sites.house.server.start()
        assert client.submit(spec, job_id=job).wait().state == JobState.SUCCEEDED


@pytest.mark.parametrize("site", HOSTS)
def test_a_host_that_has_answered_is_waited_for(sites: TwoSites, site: str) -> None:
    server = sites.house.server
    with sites.client() as client, ThreadPoolExecutor(1) as other:
        job = client.submit(JobSpec(site=site, command="wait"))
        until(lambda: sites.house.site.starts() == 1)
        server.cut()
        server.stop()
        waiting = other.submit(job.wait)
        sites.house.site.go.touch()
        server.start()
        assert waiting.result(120).state == JobState.SUCCEEDED


@pytest.mark.parametrize("site", HOSTS)
def test_a_host_that_a_hook_has_just_started_is_waited_for(sites: TwoSites, site: str) -> None:
    begun = sites.place / "begun"
    for name in HOSTS:
        hook = f'before = ["/bin/sh", "-c", "touch {begun}; echo {HOSTS[name]}"]\n'
        sites.extra = {**sites.extra, name: sites.extra[name] + hook}
    sites.hosts_named = False
    with sites.client() as client, ThreadPoolExecutor(1) as other:
        sites.house.server.stop()
        job = other.submit(client.submit, JobSpec(site=site, command="noop"))
        until(begun.exists)
        sites.house.server.start()
        assert job.result(120).wait().state == JobState.SUCCEEDED
