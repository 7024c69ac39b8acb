"""Health, metrics and the description of the API."""

from __future__ import annotations

import json
import re

import pytest
from structlog.testing import capture_logs

from sekisho import __version__
from sekisho.domain.access import Role, Scope
from sekisho.domain.errors import Corrupt, SyncFailed, Unavailable
from sekisho.http.open_calls import NUMBERS
from tests.integration.http_world import HttpWorld, code_of
from tests.world import a_chunk

pytestmark = pytest.mark.anyio

_SAMPLE = re.compile(r'sekisho_[a-z_]+(\{([a-z]+="([^"\\\n]|\\.)*",?)+\})? [0-9.e+-]+')


async def test_a_broker_that_cannot_work_says_so_but_lives() -> None:
    http_world = HttpWorld()
    async with http_world.client() as http:
        assert (await http.get("/health/ready")).status_code == 200
        http_world.failing.append(Unavailable())
        http_world.world.clock.passed += 1
        failed = await http.get("/health/ready")
        assert (failed.status_code, code_of(failed)) == (503, "broker.not_ready")
        assert failed.json()["params"] == {"failed": ["database"]}
        assert failed.headers["retry-after"] == "5"
        assert (await http.get("/health/live")).status_code == 200


async def test_anybody_may_ask_often_without_costing_the_database_much() -> None:
    http_world = HttpWorld()
    async with http_world.client() as http:
        await http.get("/health/ready")
        http_world.failing.append(Corrupt())
        assert (await http.get("/health/ready")).status_code == 200


async def test_metrics_are_well_formed_and_tell_nothing_of_a_jobs_content() -> None:
    http_world = HttpWorld()
    world = http_world.world
    job = world.submit(request=b"CANARY-REQUEST")
    world.draft("CANARY-CHUNK")
    async with http_world.as_role(Role.MONITOR, "watcher") as http:
        await http.get("/nowhere")
        answer = await http.get("/metrics")
        answer = await http.get("/metrics")
    text = answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            families.add(line.split()[2])
        elif not line.startswith("# HELP "):
            assert _SAMPLE.fullmatch(line), line
    assert {f"sekisho_{name}" for name in ("jobs", "disk_free_bytes", "polling")} <= families
    assert f'version="{__version__}"' in text
    assert 'sekisho_jobs{site="one",state="queued"} 1\n' in text
    assert (
        f'sekisho_chunk_bytes_total{{direction="in"}} {a_chunk("CANARY-CHUNK")[0].size}\n' in text
    )
    assert 'sekisho_requests_total{route="GET /metrics",status="200"} 1\n' in text
    for secret in ("CANARY", job.id, "alice"):
        assert secret not in text


async def test_every_counted_number_is_shown() -> None:
    http_world = HttpWorld()
    http_world.world.held()
    counted = {name for name, _, _ in http_world.world.desk.meter.numbers()}
    assert counted <= NUMBERS.keys()


async def test_the_description_has_every_route_and_every_message() -> None:
    http_world = HttpWorld()
    async with http_world.client() as http:
        document = (await http.get("/v1/openapi.json")).json()
    described = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    assert described == {(row.method, row.path) for row in http_world.rows()}
    components = document["components"]["schemas"]
    for name in re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)):
        assert name in components
    for row in http_world.rows():
        operation = document["paths"][row.path][row.method.lower()]
        assert operation["x-scope"] == row.scope.value
        assert ("security" in operation) is (row.scope is not Scope.OPEN)
        assert operation["summary"] == row.purpose


async def test_credentials_that_are_refused_do_not_fill_the_log() -> None:
    """Kills: a line for each wrong guess, or guesses of which the log does not tell."""
    http_world = HttpWorld()
    with capture_logs() as lines:
        async with http_world.client("nonsense") as http:
            for seconds in (0.0, 0.5, 0.4, 0.1, 0.9, 1.0):
                http_world.world.clock.passed += seconds
                assert (await http.get("/v1/jobs")).status_code == 401
    told = [line["unlogged"] for line in lines if line["event"] == "credential_refused"]
    assert told == [0, 2, 1]


async def test_an_error_of_ours_is_told_without_its_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    http_world = HttpWorld()
    http_world.failing.append(RuntimeError("a secret of the machine"))
    async with http_world.client() as http:
        answer = await http.get("/health/ready")
    assert (answer.status_code, code_of(answer)) == (500, "internal")
    assert "secret" not in answer.text
    assert "a secret of the machine" in capsys.readouterr().out


async def test_a_failed_sync_ends_the_process_whoever_met_it() -> None:
    http_world = HttpWorld()
    http_world.failing.append(SyncFailed())
    async with http_world.client() as http:
        assert (await http.get("/health/ready")).status_code == 500
    assert http_world.fatals == http_world.failing
