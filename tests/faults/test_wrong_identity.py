"""Two agents with one identity, a clock that is a day off, credentials that are no good.

Each time nothing is started twice, nothing accepted is lost, and a code says what is wrong.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.faults.program import Program, call
from tests.faults.trio import SITE, USER, Trio, private
from tests.proxy import HOST

#: What is run first in the agent and in the site's check: they live on another day.
OTHER_DAY = """\
import datetime
from sekisho.adapters import clock_system, probes_broker

class OtherDay(datetime.datetime):
    @staticmethod
    def now(zone):
        return datetime.datetime.now(zone) + datetime.timedelta(days={days})

clock_system.datetime = probes_broker.datetime = OtherDay
"""


@pytest.fixture
def twin(trio: Trio) -> Iterator[Program]:
    """A program for the agent of a copied site directory."""
    made = Program(trio.home / "twin.log")
    yield made
    made.kill()


def start_twin(trio: Trio, twin: Program) -> Path:
    place = trio.home / "twin"
    shutil.copytree(trio.site, place)
    twin.start(("agent", "--dir", place), trio.environ)
    twin.event("agent_started")
    return place


def test_two_agents_of_one_identity_start_every_job_once(trio: Trio, twin: Program) -> None:
    place = start_twin(trio, twin)
    with trio.connect() as client:
        jobs = [client.submit(trio.spec(f"job-{n}")) for n in range(12)]
        assert {job.wait(timeout=60).state for job in jobs} == {"succeeded"}
    assert trio.starts() == {f"job-{n}": 1 for n in range(12)}
    trio.agent.stop()
    twin.stop()
    for where in (trio.site, place):
        call(trio.environ, "site", "log", "--dir", where, "--verify")


def test_a_copy_made_while_a_job_runs_does_not_run_it_again(trio: Trio, twin: Program) -> None:
    """Both know the job from the journal; one word of the two counts, and both come to rest."""
    with trio.connect() as client:
        job = client.submit(trio.spec("one", "gate"))
        trio.broker.event("job_changed", job=job.id, state="running")
        start_twin(trio, twin)
        twin.event("run_adopted", job=job.id)
        trio.open_gate()
        first = job.wait(timeout=60)
    assert first.state == "succeeded"
    assert trio.starts() == {"one": 1}
    assert trio.life(job.id).count("succeeded") == 1
    for agent in (trio.agent, twin):  # nothing owed: both end when they are asked to
        assert agent.stop() == 0


def test_a_second_agent_on_the_same_directory_is_refused(trio: Trio) -> None:
    _, err = call(trio.environ, "agent", "--dir", trio.site, status=73)
    assert "agent.running" in err


@pytest.mark.parametrize("days", [-1, 1])
def test_a_site_whose_clock_is_a_day_off_works_and_is_told_so(still: Trio, days: int) -> None:
    """Kills: offers or time limits that are counted with the other side's clock."""
    another = OTHER_DAY.format(days=days)
    still.start_broker()
    still.start_agent(first=another)
    began = datetime.now(UTC)
    with still.connect() as client:
        job = client.submit(still.spec("one", "0.3"))
        assert job.wait(timeout=60).state == "succeeded"
    check = ("site", "check", "--quick", "--dir", still.site)
    out, _ = call(still.environ, *check, status=None, first=another)
    assert "[check.clock_off]" in out
    assert re.search(r"\b86(39|40)\d s", out)
    call(still.environ, "site", "log", "--dir", still.site, "--verify")
    out, _ = call(still.environ, "site", "log", "--dir", still.site, "--job", job.id)
    today = {datetime.now(UTC).date().isoformat(), began.date().isoformat()}
    assert {line[:10] for line in out.splitlines()}.isdisjoint(today)  # it did live on another day


# -------------------------------------------------------------------------------- credentials


def broker(trio: Trio, *words: str | Path) -> str:
    return call(trio.environ, "broker", *words, "-c", trio.broker_config)[0]


def token_of(trio: Trio, *words: str) -> Path:
    file = trio.home / "other-token"
    broker(trio, "token", "create", *words, "--to", file)
    return file


def use(trio: Trio, token: Path) -> None:
    config = trio.client_config
    config.write_text(
        re.sub(r'(?m)^token_file = ".*"$', f'token_file = "{token}"', config.read_text())
    )


def test_a_token_past_its_end_is_refused(still: Trio) -> None:
    use(still, token_of(still, "--role", "submitter", "--user", USER, "--days", "0.0000001"))
    still.start_broker()
    _, err = call(still.environ, "--config", still.client_config, "sites", status=77)
    assert "error[auth.required]" in err


def test_a_revoked_token_is_refused_while_the_broker_runs_and_jobs_go_on(trio: Trio) -> None:
    use(trio, token_of(trio, "--role", "submitter", "--user", USER))
    with trio.connect() as client:
        job = client.submit(trio.spec("one", "gate"))
    newest = max(re.findall(r"tok_[0-9a-z]{26}", broker(trio, "token", "list")))
    broker(trio, "token", "revoke", newest)
    _, err = call(trio.environ, "--config", trio.client_config, "wait", job.id, status=77)
    assert "error[auth.required]" in err
    trio.open_gate()
    use(trio, trio.home / "token")
    with trio.connect() as client:
        assert client.job(job.id).wait(timeout=60).state == "succeeded"


def test_a_token_of_another_site_gets_nothing_of_this_one(trio: Trio) -> None:
    """Joined as another site: its agent is served as that one, and the check says what is wrong."""
    trio.agent.kill()
    invitation = private(
        trio.home / "second", broker(trio, "site", "add", "kyushu", "--user", USER)
    )
    there = trio.home / "kyushu"
    joining = ("--site", "kyushu", "--user", USER, "--broker", f"http://{HOST}:{trio.proxy.port}")
    call(trio.environ, "site", "init", "--dir", there, *joining)
    call(trio.environ, "site", "join", "--dir", there, "--invitation-file", invitation)
    shutil.copy(there / "token", trio.site / "token")
    with trio.connect() as client:
        job = client.submit(trio.spec("one"))
        call(trio.environ, "agent", "--once", "--dir", trio.site)
        assert job.refresh().state == "queued"
    out, _ = call(trio.environ, "site", "check", "--quick", "--dir", trio.site, status=1)
    assert "[check.other_site]" in out
    assert SITE in out
    assert trio.starts() == {}


def test_a_site_whose_token_was_replaced_is_told_so_and_its_job_goes_on(trio: Trio) -> None:
    """A rotated site: the agent cannot report until it has joined again; nothing is lost by it.

    The agent that runs takes the new token up by itself.
    """
    with trio.connect() as client:
        job = client.submit(trio.spec("one", "gate"))
        trio.broker.event("job_changed", job=job.id, state="running")
        invitation = private(trio.home / "again", broker(trio, "site", "rotate", SITE))
        trio.open_gate()
        trio.agent.event("poll_failed", code="auth.required")
        call(trio.environ, "site", "join", "--dir", trio.site, "--invitation-file", invitation)
        trio.agent.event("connected_again")
        assert job.wait(timeout=60).state == "succeeded"
    assert trio.starts() == {"one": 1}
