"""One site that a broker and a gate serve at once: agent and carrier, each a process of its own."""

from __future__ import annotations

import json
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sekisho.adapters.lane_gate import GateLane
from sekisho.adapters.patience import Patience
from sekisho.adapters.sitelog_directory import read_log, verify_log
from sekisho.client.client import Client
from sekisho.client.spec import JobSpec
from sekisho.compose.client import client as broker_client
from tests.e2e.conftest import SITE, USER, House
from tests.gated import local_gate

JOBS = 12


def test_jobs_of_both_lanes_are_in_one_chain_and_in_one_list(house: House) -> None:
    home = house.home / "site"
    gate = GateLane(SITE, lambda: local_gate(home, USER), Patience(limit_s=120))

    def one(client: Client) -> str:
        job = client.submit(JobSpec(site=SITE, command="say", parameters={"text": "both"}))
        assert job.wait().state == "succeeded"
        return job.id

    pushed = Client(gate)
    with broker_client(house.config) as pulled, ThreadPoolExecutor(6) as pool:
        jobs = set(pool.map(one, [pushed, pulled] * JOBS))
    pushed.close()
    last, broken = verify_log(home / "state")
    assert broken is None
    assert last is not None
    told = defaultdict(set)
    for _, line in read_log(home / "state"):
        record = json.loads(line)
        told[record["job"]].add(record["kind"])
    for job in jobs:
        assert told[job] >= {"offered", "accepted", "started", "ended", "released"}
    listed = house.call("site", "jobs", "--all", "--json", "--dir", home).json
    assert {row["job"] for row in listed} >= jobs
    assert house.call("site", "log", "--verify", "--dir", home).status == 0


def test_no_more_of_a_command_run_at_once_than_may_whichever_lane_they_came_by(
    house: House,
) -> None:
    """Killed by: agent and carrier counting apart."""
    home = house.home / "site"
    gate = GateLane(SITE, lambda: local_gate(home, USER), Patience(limit_s=120))

    def one(client: Client) -> str:
        return client.submit(JobSpec(site=SITE, command="crowd")).wait().state

    pushed = Client(gate)
    with broker_client(house.config) as pulled, ThreadPoolExecutor(12) as pool:
        states = list(pool.map(one, [pushed, pulled] * JOBS))
    pushed.close()
    assert states == ["succeeded"] * 2 * JOBS
    beside = [int(line) for line in Path(f"{house.gate}.crowd").read_text().split()]
    assert len(beside) == 2 * JOBS
    assert max(beside) == 3
