"""Who may call what: every route, every credential, every owner, generated from the route table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import msgspec
import pytest

from sekisho.domain.access import SCOPES, Role, Scope
from sekisho.domain.job import Job
from sekisho.domain.token import hash_token, make_token
from sekisho.http.call import Anything, Chunks, Digests, Frames, Row
from sekisho.http.query import HeldFetching, Hold
from sekisho.wire import v1
from sekisho.wire.frames import frame, pack_chunks, pack_digests
from tests.component.broker_world import AGENT, World, a_submission
from tests.integration.http_world import PREFIX, HttpWorld, code_of
from tests.world import a_chunk, an_id

pytestmark = pytest.mark.anyio

ROWS = HttpWorld().rows()
NAMES = [row.route for row in ROWS]
#: Whom a token of each role stands for: of the job's own tenant, and of another one.
TENANTS = {
    Role.SUBMITTER: ("alice", "bob"),
    Role.SITE: ("one", "two"),
    Role.INVITATION: ("one", "two"),
    Role.MONITOR: ("watcher", "watcher"),
    Role.ADMIN: ("operator", "operator"),
}
CHUNK, DATA = a_chunk("matrix")
HELD: dict[str, Any] = {"epoch": 1, "instance": AGENT}

BODIES: dict[type | None, Callable[[], bytes]] = {
    None: lambda: b"",
    Chunks: lambda: pack_chunks([CHUNK]),
    Digests: lambda: pack_digests([CHUNK.digest]),
    Frames: lambda: frame(CHUNK.digest, DATA),
    Anything: lambda: b"anything",
    v1.SubmitJob: lambda: msgspec.json.encode(a_submission()),
    v1.OpenDraft: lambda: msgspec.json.encode(v1.OpenDraft(id=an_id("job"), site="one")),
    v1.JoinSite: lambda: msgspec.json.encode(
        v1.JoinSite(
            instance=AGENT, token_hash=hash_token(make_token(Role.SITE, b"j" * 32).reveal())
        )
    ),
    v1.Poll: lambda: msgspec.json.encode(v1.Poll(instance=AGENT, free=0, wait_s=0.0)),
    v1.Accept: lambda: msgspec.json.encode(v1.Accept(**HELD)),
    v1.Report: lambda: msgspec.json.encode(v1.Report(**HELD, steps=["started"])),
    v1.Publish: lambda: msgspec.json.encode(v1.Publish(**HELD, snapshot=b"shown")),
    v1.Verdict: lambda: msgspec.json.encode(v1.Verdict(**HELD, verdict="unable", result=b"")),
    v1.SiteSwitch: lambda: msgspec.json.encode(v1.SiteSwitch(disabled=True)),
    v1.DeclareLost: lambda: msgspec.json.encode(v1.DeclareLost(by="operator")),
}


def job_for(world: World, row: Row) -> Job:
    """Return a job of alice's at site `one`, in a state in which the route works."""
    if "/inputs/" in row.path:
        return world.draft("matrix")
    if row.route.startswith(("POST /v1/site", "PUT /v1/site")) or "/lost" in row.path:
        offer = world.held()
        world.put(world.claim(offer), world.job(offer.job), ["matrix"])
        if "snapshot" in row.path:
            world.desk.offers.report("one", offer.job, v1.Report(**HELD, steps=["started"]))
        return world.job(offer.job)
    if "received" in row.path:
        job = world.submit()
        return world.desk.submissions.cancel("alice", job.id)
    job = world.draft("matrix")
    if "snapshot" in row.path:
        world.desk.ports.store.snapshots.keep(job.id, b"shown")
    return job


async def call(http: httpx2.AsyncClient, row: Row, named: str, prefix: str = "") -> httpx2.Response:
    query = HELD if row.query in (Hold, HeldFetching) else {}
    path = prefix + row.path.replace("{id}", named)
    return await http.request(row.method, path, params=query, content=BODIES[row.takes]())


def named_by(row: Row, job: Job) -> str:
    return "one" if "/sites/{id}" in row.path else job.id


def test_every_row_names_its_scope_and_can_be_called_by_some_role() -> None:
    assert len(set(NAMES)) == len(NAMES)
    for row in ROWS:
        assert row.takes in BODIES
        roles = [role for role in Role if row.scope in SCOPES[role]]
        assert roles or row.scope is Scope.OPEN


def test_only_health_and_the_description_are_open() -> None:
    opened = {row.path for row in ROWS if row.scope is Scope.OPEN}
    assert opened == {"/health/live", "/health/ready", "/v1/openapi.json"}


def scopes_below(path: str) -> set[Scope]:
    """Return what a route there may be for, by the path alone."""
    _, *parts = path.split("/")
    match parts:
        case ["health", _] | ["v1", "openapi.json"]:
            return {Scope.OPEN}
        case ["v1", "jobs" | "drafts" | "sites", *_]:
            return {Scope.JOB_SUBMIT, Scope.JOB_READ, Scope.JOB_CANCEL}
        case ["v1", "site", "join"]:
            return {Scope.SITE_JOIN}
        case ["v1", "site", *_]:
            return {Scope.SITE_WORK}
        case ["metrics"]:
            return {Scope.METRICS_READ}
    return {Scope.ADMIN}


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_a_route_is_for_those_whom_its_path_is_for(row: Row) -> None:
    """Kills: a list of everybody's jobs for every submitter; each other test believes the row."""
    assert row.scope in scopes_below(row.path)


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
async def test_the_right_caller_is_served(row: Row) -> None:
    http_world = HttpWorld()
    world = http_world.world
    role = next((r for r in Role if row.scope in SCOPES[r]), Role.ADMIN)
    named = named_by(row, job_for(world, row))
    async with http_world.as_role(role, TENANTS[role][0]) as http:
        response = await call(http, row, named)
        assert response.is_success, response.text
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-content-type-options"] == "nosniff"
        again = await call(http, row, named, PREFIX)
        assert again.is_success, again.text


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
async def test_no_credential_and_a_wrong_one_are_told_the_same(row: Row) -> None:
    http_world = HttpWorld()
    world = http_world.world
    job = job_for(world, row)
    token, secret = world.desk.tokens.create(Role.ADMIN, "operator")
    world.desk.tokens.revoke(token.id)
    answers = set()
    wrong = [None, "nonsense", make_token(Role.ADMIN, b"x" * 32).reveal(), secret.reveal()]
    for text in wrong:
        for named in (named_by(row, job), an_id("job")):
            async with http_world.client(text) as http:
                response = await call(http, row, named)
                answers.add((response.status_code, response.content))
    if row.scope is Scope.OPEN:
        assert {status for status, _ in answers} == {200}
    else:
        assert len(answers) == 1
        assert {status for status, _ in answers} == {401}


async def test_a_caller_says_once_who_it_is() -> None:
    """Kills: a proxy that believes the one credential, before a broker that believes the other."""
    http_world = HttpWorld()
    secret = http_world.world.token(Role.SUBMITTER, "alice")
    async with http_world.client() as http:
        for one, other in ((secret, secret), (secret, "nonsense"), ("nonsense", secret)):
            twice = [("Authorization", f"Bearer {text}") for text in (one, other)]
            assert (await http.get("/v1/jobs", headers=twice)).status_code == 401
        for scheme, status in (("bearer", 200), ("Basic", 401), ("Bearer x", 401)):
            alone = {"Authorization": f"{scheme} {secret}"}
            assert (await http.get("/v1/jobs", headers=alone)).status_code == status


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("row", ROWS, ids=NAMES)
async def test_a_role_without_the_scope_is_refused_whatever_it_names(row: Row, role: Role) -> None:
    if row.scope in SCOPES[role] or row.scope is Scope.OPEN:
        return
    http_world = HttpWorld()
    world = http_world.world
    job = job_for(world, row)
    before = world.job(job.id)
    async with http_world.as_role(role, TENANTS[role][0]) as http:
        for named in (named_by(row, job), an_id("job")):
            response = await call(http, row, named)
            assert (response.status_code, code_of(response)) == (403, "auth.scope")
    assert world.job(job.id) == before


@pytest.mark.parametrize("row", [r for r in ROWS if "/jobs/{id}" in r.path], ids=lambda r: r.route)
async def test_anothers_job_answers_like_one_that_does_not_exist(row: Row) -> None:
    http_world = HttpWorld()
    world = http_world.world
    job, unknown = job_for(world, row), an_id("job")
    before = world.job(job.id)
    role = next(r for r in Role if row.scope in SCOPES[r])
    named = [unknown] if role is Role.ADMIN else [job.id, unknown]
    async with http_world.as_role(role, TENANTS[role][1]) as http:
        for name in named:
            response = await call(http, row, name)
            assert (response.status_code, code_of(response)) == (404, "job.not_found")
            assert response.json()["params"] == {"job": name}
    assert world.job(job.id) == before


@pytest.mark.parametrize("path", sorted({row.path for row in ROWS}))
async def test_no_other_method_is_understood(path: str) -> None:
    http_world = HttpWorld()
    known = {row.method for row in ROWS if row.path == path}
    methods = {"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "X"} - known
    async with http_world.as_role(Role.ADMIN, "operator") as http:
        for method in sorted(methods):
            response = await http.request(method, path.replace("{id}", an_id("job")))
            assert response.status_code == 405
            assert set(response.headers["allow"].split(", ")) == known


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/jobs/", "/v1/jobs/a/b", "//v1/jobs", "/v2/jobs"])
async def test_other_paths_do_not_exist(path: str) -> None:
    async with HttpWorld().client() as http:
        response = await http.get(f"http://broker{path}")
        assert (response.status_code, code_of(response)) == (404, "http.path")


async def test_a_result_is_for_its_submitter() -> None:
    """Kills: an operator who reads along. What is kept is the broker's, what it says is not."""
    http_world = HttpWorld()
    world = http_world.world
    offer = world.ended()
    world.verdict(offer, "unable", result=b"what came of it")
    async with http_world.as_role(Role.SUBMITTER, "alice") as http:
        (mine,) = (await http.get("/v1/jobs")).json()["jobs"]
        assert mine == (await http.get(f"/v1/jobs/{offer.job}")).json()
        assert mine["result"]
    held = world.held()
    async with http_world.as_role(Role.ADMIN, "operator") as http:
        answers = [(await http.get("/v1/admin/jobs")).json()["jobs"]]
        lost = await http.post(f"/v1/admin/jobs/{held.job}/lost", json={"by": "operator"})
        answers.append([lost.json()])
        assert [len(jobs) for jobs in answers] == [2, 1]
        assert all("result" not in job for jobs in answers for job in jobs)


async def test_no_parameter_says_who_the_caller_is() -> None:
    http_world = HttpWorld()
    job = http_world.world.submit()
    async with http_world.as_role(Role.SUBMITTER, "bob") as http:
        for name in ("submitter", "user", "tenant", "site"):
            query = {name: "alice" if name != "site" else "one"}
            assert (await http.get("/v1/jobs", params=query)).json() == {"jobs": []}
            assert (await http.get(f"/v1/jobs/{job.id}", params=query)).status_code == 404
        headers = {"X-Forwarded-User": "alice", "Remote-User": "alice", "X-Submitter": "alice"}
        assert (await http.get(f"/v1/jobs/{job.id}", headers=headers)).status_code == 404
