"""A broker that dies at the first, the second, … of a job's durable steps, at every one of them.

When it is back, standing offers are over: it was away for long. P1 to P5 hold, every time.
"""

from __future__ import annotations

import itertools
import threading

import pytest

from sekisho.adapters.durable import CRASH_STATUS, CRASHPOINTS
from sekisho.api import Result
from tests.faults.trio import TERMINAL, Trio

POINTS = {"file.written", "file.renamed", "file.kept", "store.written", "store.kept"}
#: A death there leaves what another one leaves, or is none of the broker's.
NO_OTHER = {"file.begun", "file.synced", "store.begun", "append.written", "append.kept"}
FEWEST = {"file": 3, "store": 8}  #: steps of a job, by kind
MOST = 40


class User:
    """Somebody who submits one job with inputs and waits for what it makes, in a thread."""

    def __init__(self, trio: Trio, key: str) -> None:
        self._trio = trio
        self._key = key
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.acknowledged: str | None = None
        self.result: Result | None = None
        self._thread.start()

    def _run(self) -> None:
        with self._trio.connect() as client:
            job = client.submit(self._trio.spec(self._key, source=self._trio.home / "given"))
            self.acknowledged = job.id
            self.result = job.result(self._trio.home / self._key, timeout=60)

    def waits(self) -> bool:
        return self._thread.is_alive()

    def answered(self) -> Result:
        """Return the result; let the offer end that came while its forerunner was given up."""
        self._thread.join(8)
        if self._thread.is_alive():
            self._trio.let_offers_end()
            self._thread.join(60)
        assert self.result is not None
        return self.result


@pytest.mark.parametrize("point", sorted(POINTS))
def test_a_job_outlives_a_broker_that_dies_at_any_step(still: Trio, point: str) -> None:
    given = still.home / "given"
    still.start_broker()
    still.start_agent()
    for step in itertools.count(1):
        key = f"step-{step}"
        given.write_bytes(key.encode())
        still.broker.kill()
        died, user = submitted(still, key, f"{point}:{step}")
        result = user.answered()
        assert result.state == "succeeded"
        assert (still.home / key / "out/in/given").read_bytes() == given.read_bytes()
        assert still.starts()[key] == 1
        assert still.states()[result.job] == "succeeded"
        changes = still.changes(result.job)
        assert len([state for state in changes if state in TERMINAL]) <= 1  # a death can hide it
        if not died:
            break
    assert FEWEST[point.partition(".")[0]] < step < MOST


def submitted(trio: Trio, key: str, point: str) -> tuple[bool, User]:
    """Submit to a broker that dies at ``point``, start it again; say whether it did die."""
    trio.live_broker(SEKISHO_CRASHPOINT=point)
    user = User(trio, key)
    trio.broker.eventually(lambda: not (trio.broker.running and user.waits()))
    died = not trio.broker.running
    if died:
        assert trio.broker.ended() == CRASH_STATUS
        assert user.acknowledged is None or user.acknowledged in trio.states()
        trio.let_offers_end()
        trio.start_broker()
    return died, user


def test_every_crash_point_is_met_or_leaves_what_another_leaves() -> None:
    assert CRASHPOINTS.keys() == POINTS | NO_OTHER
