"""An agent that dies at the first, the second, … of a run's durable steps, at every one of them.

The next agent finds what it left. P2 to P4 hold every time; the site's log verifies.
"""

from __future__ import annotations

import itertools

import pytest

from sekisho.adapters.durable import CRASH_STATUS, CRASHPOINTS
from sekisho.client.job import Job
from tests.faults.trio import TERMINAL, Trio
from tests.proxy import HOST

POINTS = {"file.written", "file.renamed", "file.kept", "append.written", "append.kept"}
#: A death there leaves what another one leaves, or is none of the site's.
NO_OTHER = {"file.begun", "file.synced", "store.begun", "store.written", "store.kept"}
FEWEST = {"file": 4, "append": 4}  #: steps of a run, by kind
MOST = 40
OFFER_SECONDS = 3  #: by then an offer has come, or went to the line of the agent before


@pytest.mark.parametrize("point", sorted(POINTS))
def test_a_job_outlives_an_agent_that_dies_at_any_step(still: Trio, point: str) -> None:
    still.start_broker()
    still.point_at(f"http://{HOST}:{still.proxy.upstream}")  # it notices at once who is gone
    given = still.home / "given"
    with still.connect() as client:
        for step in itertools.count(1):
            key = f"step-{step}"
            given.write_bytes(key.encode())
            job = client.submit(still.spec(key, source=given))
            died = dies(still, job, f"{point}:{step}")
            if died:
                still.let_offers_end()
                still.start_agent()
            result = job.result(still.home / key, timeout=180)
            assert result.state == "succeeded", key
            assert (still.home / key / "out/in/given").read_bytes() == key.encode()
            assert still.starts()[key] == 1
            assert [s for s in still.life(job.id) if s in TERMINAL] == ["succeeded"]
            kinds = settled(still, job)
            assert kinds.index("started") < kinds.index("released") < kinds.index("returned")
            if not died:
                break
            still.agent.kill()
    assert FEWEST[point.partition(".")[0]] < step < MOST


def dies(trio: Trio, job: Job, point: str) -> bool:
    """Start an agent that dies at ``point``; say whether it did before ``job`` was returned."""
    agent, start = trio.agent, len(trio.agent.lines)
    agent.start(("agent", "--dir", trio.site), trio.environ | {"SEKISHO_CRASHPOINT": point})

    def come_to(event: str, seconds: float = 120, **facts: str) -> bool:
        """Wait until the agent is there, or dead."""

        def there() -> bool:
            return not agent.running or agent.find(event, start, job=job.id, **facts) is not None

        return bool(agent.eventually(there, seconds))

    for _ in range(10):
        if come_to("offer_taken", OFFER_SECONDS):
            break
        trio.let_offers_end()
    assert come_to("run_moved", stage="returned")
    died = agent.find("run_moved", start, job=job.id, stage="returned") is None
    if died:
        assert agent.ended() == CRASH_STATUS
    return died


def settled(trio: Trio, job: Job) -> list[str]:
    """Return what the log says of ``job`` when the site knows that the broker has the result."""
    if "returned" not in (kinds := trio.log_of(job.id)):
        trio.agent.event("run_moved", job=job.id, stage="returned")
        kinds = trio.log_of(job.id)
    return kinds


def test_every_crash_point_is_met_or_leaves_what_another_leaves() -> None:
    assert CRASHPOINTS.keys() == POINTS | NO_OTHER
