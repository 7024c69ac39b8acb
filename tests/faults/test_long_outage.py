"""Whoever is away for long, or has no room: what runs goes on, and nothing is lost."""

from __future__ import annotations

import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor

import httpx2
import msgspec
import pytest

from sekisho.api import new_job_id
from sekisho.domain.errors import StorageFull
from sekisho.domain.limits import CHUNK_BYTES, MIB
from sekisho.wire.frames import Chunk, digest_of, frame, pack_chunks
from tests.component.broker_world import a_submission
from tests.faults.trio import SITE, WHOLE_LIFE, Trio
from tests.mounts import ALONE
from tests.proxy import HOST

pytestmark = pytest.mark.time_limit(600)
FLOOR = re.compile(r"(?m)^#? ?free_floor_bytes.*$")


def test_a_broker_that_is_away_kills_nothing_and_gets_the_result_afterwards(trio: Trio) -> None:
    """P5: the command ends while nobody can be told; its result arrives when the line is back."""
    with trio.connect() as client:
        job = client.submit(trio.spec("one", "gate"))
        trio.broker.event("job_changed", job=job.id, state="running")
        trio.broker.kill()
        trio.open_gate()
        trio.agent.event("run_moved", job=job.id, stage="collected")
        trio.agent.event("run_waits", job=job.id, stage="collected")
        trio.start_broker()
        assert job.wait(timeout=60).state == "succeeded"
    assert trio.starts() == {"one": 1}


@pytest.mark.parametrize("state", ["draft", *WHOLE_LIFE[1:-1]])
def test_an_outage_of_seconds_in_any_state_costs_seconds(trio: Trio, state: str) -> None:
    """P5: the broker dies as the job comes into ``state`` and stays away for several polls."""
    given, job_id = trio.some_input(), new_job_id()
    trio.agent.kill()
    trio.start_agent(SEKISHO_LOG__LEVEL="debug")  # tells of every poll that fails
    with trio.connect() as client, ThreadPoolExecutor(1) as user:
        spec = trio.spec("one", "0.5", source=given)
        ending = user.submit(
            lambda: client.submit(spec, job_id=job_id).result(trio.home / "got", timeout=300)
        )
        trio.broker.event("job_changed", job=job_id, state=state)
        trio.broker.kill()
        away = len(trio.agent.lines)

        def several_failed() -> bool:
            told = [line.get("event") for line in trio.agent.lines[away:]]
            return told.count("poll_failed") >= 3

        assert trio.agent.eventually(several_failed, 120)
        trio.start_broker()
        assert ending.result(300).state == "succeeded"
    assert trio.starts() == {"one": 1}
    assert (trio.home / "got/out/in/given").read_bytes() == given.read_bytes()


def test_an_agent_killed_while_the_broker_is_away_owes_the_result_still(trio: Trio) -> None:
    with trio.connect() as client:
        job = client.submit(trio.spec("one", "gate"))
        trio.broker.event("job_changed", job=job.id, state="running")
        trio.broker.kill()
        trio.agent.kill()
        trio.open_gate()
        trio.start_agent()
        trio.agent.event("run_moved", job=job.id, stage="collected")
        trio.start_broker()
        assert job.wait(timeout=60).state == "succeeded"
    assert trio.starts() == {"one": 1}


def test_a_frozen_broker_is_waited_for(trio: Trio) -> None:
    """It takes connections and answers nothing: calls are given up and made again."""
    with trio.connect() as client:
        job = client.submit(trio.spec("one", "gate"))
        trio.broker.event("job_changed", job=job.id, state="running")
        trio.broker.signal(signal.SIGSTOP)
        trio.open_gate()
        trio.agent.event("run_moved", job=job.id, stage="collected")
        trio.broker.signal(signal.SIGCONT)
        assert job.wait(timeout=60).state == "succeeded"
    assert trio.life(job.id) == WHOLE_LIFE[1:]


def test_a_frozen_agent_costs_time_and_nothing_else(trio: Trio) -> None:
    with trio.connect() as client:
        job = client.submit(trio.spec("one", "gate"))
        trio.broker.event("job_changed", job=job.id, state="running")
        trio.agent.signal(signal.SIGSTOP)
        trio.open_gate()  # the command ends while its agent sees nothing
        trio.agent.signal(signal.SIGCONT)
        assert job.wait(timeout=60).state == "succeeded"
    assert trio.starts() == {"one": 1}


def test_a_broker_without_room_says_so_keeps_what_it_has_and_recovers(trio: Trio) -> None:
    """The floor of free space is put above what the disk has: 507, until the operator lowers it."""
    token = (trio.home / "token").read_text().strip()
    http = httpx2.Client(
        base_url=f"http://{HOST}:{trio.proxy.upstream}/",
        headers={"Authorization": f"Bearer {token}"},
        trust_env=False,
    )
    data = os.urandom(1000)
    chunk = Chunk(digest_of(data), len(data))
    message = a_submission(has_inputs=True, site=SITE)
    with http, trio.connect() as client:
        before = client.submit(trio.spec("before", "gate"))
        trio.broker.event("job_changed", job=before.id, state="running")
        assert http.post("v1/jobs", content=msgspec.json.encode(message)).status_code == 201
        base = f"v1/jobs/{message.id}/chunks"
        http.post(f"{base}/missing", content=pack_chunks([chunk]))
        set_floor(trio, 1 << 60)
        full = http.put(base, content=frame(chunk.digest, data))
        assert (full.status_code, full.json()["code"]) == (507, StorageFull.code)
        trio.open_gate()
        trio.agent.event("run_waits", job=before.id, stage="collected", code=StorageFull.code)
        assert trio.states()[before.id] in ("running", "returning")
        set_floor(trio, 0)
        assert http.put(base, content=frame(chunk.digest, data)).status_code == 200
        assert before.result(trio.home / "got", timeout=60).state == "succeeded"
    assert (trio.home / "got/out/key").read_text() == "before"


def set_floor(trio: Trio, size: int) -> None:
    """Change the broker's settings and have them read again."""
    config = trio.broker_config
    config.write_text(FLOOR.sub(f"free_floor_bytes = {size}", config.read_text()))
    start = len(trio.broker.lines)
    trio.broker.signal(signal.SIGHUP)
    trio.broker.event("settings_reread", start=start)


SMALL_DISK = r"""
mount -t tmpfs -o size=72m,mode=0700 none "$1/work" && shift && exec "$@"
"""  # the agent leaves 64 MiB of it free when it begins


def test_a_site_without_room_fails_the_job_says_so_and_recovers(still: Trio) -> None:
    """Inputs of 80 MiB, the same piece again and again; then a job that fits, without a restart.

    Kills: a full disk that is no end but a reason to try again, or fills up to the last byte.
    """
    (still.site / "work").mkdir(exist_ok=True)
    still.start_broker()
    still.start_agent(*ALONE, "sh", "-c", SMALL_DISK, "sh", str(still.site))
    big = still.home / "big"
    big.write_bytes(os.urandom(CHUNK_BYTES) * (80 * MIB // CHUNK_BYTES))
    with still.connect() as client:
        result = client.submit(still.spec("big", source=big)).wait(timeout=60)
        assert (result.state, result.code) == ("failed", "site.disk_full")
        small = client.submit(still.spec("small"))
        assert small.wait(timeout=60).state == "succeeded"
    assert still.starts() == {"small": 1}
