"""A reply that is lost after the deed: ask again and be answered the same, nothing moves twice.

Through the proxy, with the real client and the real agent: whole jobs, every write of both sides.
"""

from __future__ import annotations

from collections import defaultdict

import httpx2
import pytest

from sekisho.domain.limits import MIB
from sekisho.transfer.ahead import WORTH_BYTES
from tests.faults.program import call
from tests.faults.trio import SITE, USER, WHOLE_LIFE, Trio, private
from tests.integration.http_world import HttpWorld
from tests.proxy import HOST, After, CutDown, EachRequest, Fault, Request, Twice

#: What a whole job makes its two sides say. Reading chunks changes nothing, but is lost as well.
WRITES = frozenset(
    {
        "POST /v1/drafts",
        "POST /v1/jobs",
        "POST /v1/jobs/{id}/chunks/missing",
        "PUT /v1/jobs/{id}/chunks",
        "POST /v1/jobs/{id}/start",
        "POST /v1/jobs/{id}/chunks/fetch",
        "POST /v1/jobs/{id}/received",
        "POST /v1/site/jobs/{id}/accept",
        "POST /v1/site/jobs/{id}/report",
        "POST /v1/site/jobs/{id}/verdict",
        "POST /v1/site/jobs/{id}/chunks/missing",
        "PUT /v1/site/jobs/{id}/chunks",
        "POST /v1/site/jobs/{id}/chunks/fetch",
    }
)


def is_write(request: Request) -> bool:
    return request.route in WRITES


@pytest.mark.parametrize(
    ("fault", "times"),
    [(After(502), 2), (After(504), 1), (CutDown(0), 1), (CutDown(120), 1), (Twice(), 1)],
    ids=str,
)
def test_every_write_may_be_repeated(trio: Trio, fault: Fault, times: int) -> None:
    trio.proxy.rule = EachRequest(fault, times, is_write)
    source = trio.some_input(WORTH_BYTES + 4 * MIB)  # some of it goes ahead
    with trio.connect() as client:
        # long enough for its start to be told beside its end
        job = client.submit(trio.spec("one", pause="0.5", source=source))
        result = job.result(trio.home / "got", timeout=60)
    trio.agent.event("run_moved", job=job.id, stage="returned")
    assert (trio.home / "got/out/in/given").read_bytes() == source.read_bytes()
    assert result.exit_code == 0
    assert trio.life(job.id) == WHOLE_LIFE
    assert trio.starts() == {"one": 1}
    assert trio.log_of(job.id) == [
        "offered",
        "accepted",
        "started",
        "ended",
        "released",
        "returned",
    ]
    sends = {route for route in WRITES if route.startswith("PUT")}
    assert repeated(trio, times) >= WRITES - sends  # who sends looks first what has arrived


@pytest.mark.parametrize("fault", [After(502), CutDown(0), Twice()], ids=str)
def test_a_cancel_may_be_repeated_and_stops_once(trio: Trio, fault: Fault) -> None:
    trio.proxy.rule = EachRequest(fault, 1, lambda r: r.route.endswith(("/cancel", "/verdict")))
    with trio.connect() as client:
        job = client.submit(trio.spec("one", "gate"))
        trio.broker.event("job_changed", job=job.id, state="running")
        job.cancel()
        result = job.wait(timeout=60)
    assert result.state == "cancelled"
    assert trio.life(job.id, "cancelled") == [*WHOLE_LIFE[1:5], "cancelled"]
    trio.agent.event("run_moved", job=job.id, stage="cancelled")
    assert trio.log_of(job.id) == ["offered", "accepted", "started", "cancelled"]


@pytest.mark.parametrize("fault", [After(502), CutDown(0), Twice()], ids=str)
def test_an_invitation_whose_answer_was_lost_still_joins(still: Trio, fault: Fault) -> None:
    still.start_broker()
    config, where = ("-c", still.broker_config), ("--dir", still.home / "other")
    out, _ = call(still.environ, "broker", "site", "add", "other", "--user", USER, *config)
    invitation = private(still.home / "second", out)
    url = f"http://{HOST}:{still.proxy.port}"
    joining = ("--site", "other", "--user", USER, "--broker", url)
    call(still.environ, "site", "init", *where, *joining)
    still.proxy.rule = EachRequest(fault, 1, lambda r: r.route == "POST /v1/site/join")
    call(still.environ, "site", "join", *where, "--invitation-file", invitation)
    assert len([r for r, _ in still.proxy.seen if r.route == "POST /v1/site/join"]) == 2
    call(still.environ, "agent", "--once", *where)


def test_an_operators_word_may_be_repeated(trio: Trio) -> None:
    """The operator's writes, and a check that the table has no write that nothing here repeats."""
    admin = {"Authorization": f"Bearer {(trio.home / 'admin').read_text().strip()}"}
    with trio.connect() as client:
        job = client.submit(trio.spec("one", "gate"))
        trio.broker.event("job_changed", job=job.id, state="running")
    says = {
        "POST /v1/admin/sites/{id}": (f"v1/admin/sites/{SITE}", {"disabled": True}),
        "POST /v1/admin/jobs/{id}/lost": (f"v1/admin/jobs/{job.id}/lost", {"by": "root"}),
        "POST /v1/admin/reload": ("v1/admin/reload", None),
    }
    base = f"http://{HOST}:{trio.proxy.upstream}/"
    with httpx2.Client(base_url=base, headers=admin, trust_env=False) as http:
        for path, word in says.values():
            first, second = (http.post(path, json=word) for _ in range(2))
            assert (first.status_code, first.content) == (200, second.content)
    assert trio.life(job.id, "lost") == [*WHOLE_LIFE[1:5], "lost"]
    questions = {"POST /v1/site/poll", "POST /v1/site/check"}  # nothing to be repeated
    questions |= {f"POST /v1/site/jobs/{{id}}/inputs/{what}" for what in ("arrived", "fetch")}
    elsewhere = {"POST /v1/jobs/{id}/cancel", "POST /v1/site/join"}
    elsewhere.add("POST /v1/site/jobs/{id}/snapshot")  # in test_publish: the next one replaces it
    writes = {row.route for row in HttpWorld().rows() if not row.route.startswith("GET")}
    assert writes == WRITES | says.keys() | questions | elsewhere


def repeated(trio: Trio, times: int) -> set[str]:
    """Return the routes of which a request got through after the fault; all answers must agree."""
    answers: dict[tuple[str, str, bytes], list[bytes]] = defaultdict(list)
    for request, answer in trio.proxy.seen:
        answers[request.route, request.target, request.body].append(answer)
    for (route, _, _), given in answers.items():
        assert all(answer.startswith(b"HTTP/1.1 20") for answer in given), route
        bodies = {answer.partition(b"\r\n\r\n")[2] for answer in given}
        assert len(bodies) == 1 or not route.startswith("POST /v1/site") or "missing" in route, (
            route
        )
    return {route for (route, _, _), given in answers.items() if len(given) > times} & WRITES
