"""Lines that are cut and brokers that are killed, at every call, in every mixture of programs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from sekisho.api import JobSpec, connect
from tests.compat.old_lines import run
from tests.compat.old_programs import House, OldAgent, OldWorkflow, a_house, said, text_of
from tests.compat.test_mint_mixtures import prepared
from tests.faults.trio import private
from tests.integration.http_process import failing
from tests.proxy import (
    After,
    CutDown,
    EachRequest,
    Fault,
    Held,
    Instead,
    Proxy,
    Reset,
    Twice,
    proxy,
)
from tests.proxy import Request as Asked

SECONDS = 120
BASE = "/mi-distcomp-api/"


class Again(httpx2.BaseTransport):
    """Asks again when a line is bad, as old programs do."""

    def __init__(self) -> None:
        self._way = httpx2.HTTPTransport()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        until = time.monotonic() + SECONDS
        while True:
            try:
                answer = self._way.handle_request(request)
                if answer.status_code != 502:
                    return answer
                answer.close()
            except httpx2.RequestError:
                if time.monotonic() > until:
                    raise
            threading.Event().wait(0.05)

    def close(self) -> None:
        self._way.close()


def line_of(house: House, port: int, user: str = "tanaka") -> httpx2.Client:
    headers = {"Authorization": f"Bearer {house.token(user)}"}
    base = f"http://127.0.0.1:{port}{BASE}"
    return httpx2.Client(transport=Again(), base_url=base, headers=headers, timeout=60)


# ------------------------------------------------------------------------- cut lines


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with a_house(tmp_path_factory.mktemp("house")).serving() as serving:
        yield serving


@pytest.fixture
def bad_line(house: House) -> Iterator[Proxy]:
    with proxy() as made:
        made.upstream = house.broker.port
        yield made


CALLS = (
    "POST add-calcinfo",
    "POST allow-wait-calc",
    "GET calc-status",
    "GET calc-progress",
    "GET calc-params",
    "POST calc-params-complete",
    "POST calc-start",
    "POST calc-end",
    "POST send-results",
    "POST end-send",
    "GET get-calc-result",
)


@pytest.mark.parametrize("fault", [Instead(), After(), CutDown(25), Reset(), Twice()], ids=repr)
def test_every_call_may_be_cut_and_made_again(
    house: House, bad_line: Proxy, tmp_path: Path, fault: Fault
) -> None:
    """Kills: a call that is refused, or does something else, when it comes a second time.

    How an offer is cut and made again takes time, and is shown in test_mint_holding.
    """
    routes = {call.replace(" ", " " + BASE) for call in CALLS}
    bad_line.rule = rule = EachRequest(fault, 1, lambda asked: asked.route in routes)
    with line_of(house, bad_line.port) as line:
        workflow, agent = OldWorkflow(line), OldAgent(line, tmp_path / "calc")
        accept_id = workflow.add(files={"in.txt": b"42"}, results=["out.txt"])
        assert said(workflow.allow(accept_id)) in [(200, 200), (400, 401)]
        assert agent.work("cp in.txt out.txt; echo done")
        assert agent.runs == ["/opt/solver/bin/solve"]
        assert (workflow.progress(accept_id), workflow.status(accept_id)) == (
            "got return",
            "completed",
        )
        assert text_of(workflow.result(accept_id)["out.txt"]) == "42"
    assert len(rule.tries) >= len(CALLS)


@pytest.mark.parametrize("fault", [CutDown(300), After(), Reset()], ids=repr)
def test_the_workflows_command_line_gets_a_result_whose_answer_was_cut(
    house: House, bad_line: Proxy, tmp_path: Path, fault: Fault
) -> None:
    """Kills: deleting a calculation because its result did not arrive whole."""
    late = {"GET " + BASE + call for call in ("get-calc-result", "calc-status", "calc-progress")}
    bad_line.rule = EachRequest(fault, 1, lambda asked: asked.route in late)
    (tmp_path / "in.txt").write_text("42")
    with house.line() as line, ThreadPoolExecutor(1) as pool:
        agent = OldAgent(line, tmp_path / "calc")
        token = private(tmp_path / "token", house.token("tanaka"))
        url = f"http://127.0.0.1:{bad_line.port}"
        words = (url, "old-site", f"file:{token}", "/opt/solver/bin/solve", "in.txt", "out.txt")
        done = pool.submit(run, "workflow", *words, cwd=tmp_path)
        until = time.monotonic() + SECONDS
        while not agent.work("cp in.txt out.txt"):
            assert time.monotonic() < until
        status, _, err = done.result(SECONDS)
    assert status == 0, err
    assert (tmp_path / "out.txt").read_text() == "42"


# ------------------------------------------------------------------------- killed brokers


@dataclass
class Killing:
    """Kills the broker, and starts it again, before each call that it has not seen yet."""

    house: House
    line: Proxy
    current: ExitStack
    routes: list[str] = field(default_factory=list)
    turn: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, asked: Asked) -> Fault | None:
        if asked.route in self.routes:
            return None
        self.routes.append(asked.route)
        again = asyncio.Event()
        threading.Thread(target=self._restart, args=(again,)).start()
        return Held(again)

    def _restart(self, again: asyncio.Event) -> None:
        with self.turn:
            self.current.close()
            self.current.enter_context(self.house.serving())
        self.line.call(again.set)


@contextmanager
def killing(place: Path) -> Iterator[tuple[House, Killing]]:
    """Give a house of both sites whose broker is killed before every new call."""
    house = a_house(place)
    with proxy() as line, ExitStack() as current:
        current.enter_context(house.serving())
        line.upstream = house.broker.port
        prepared(house, f"http://127.0.0.1:{line.port}")
        line.rule = rule = Killing(house, line, current)
        yield house, rule
        with rule.turn:
            pass


def old_workflow(house: House, rule: Killing, site: str, served: Callable[[], None]) -> str:
    with line_of(house, rule.line.port) as line:
        workflow = OldWorkflow(line)
        accept_id = workflow.add(site=site, files={"in.txt": b"42"}, results=["out.txt"])
        assert said(workflow.allow(accept_id)) == (200, 200)
        until = time.monotonic() + SECONDS
        while workflow.progress(accept_id) != "got return":
            served()
            assert time.monotonic() < until
        assert workflow.status(accept_id) == "completed"
        return text_of(workflow.result(accept_id)["out.txt"])


def new_workflow(house: House, rule: Killing, site: str, served: Callable[[], None]) -> str:
    given = house.place / "given"
    given.write_text("42")
    config = house.place / "client.toml"
    assert f":{rule.line.port}" in config.read_text()
    with connect(config) as client, ThreadPoolExecutor(1) as pool:
        spec = JobSpec(site=site, command="solve", inputs={"in.txt": given}, outputs=["out.txt"])
        job = client.submit(spec)
        done = pool.submit(job.result, house.place / "results")
        until = time.monotonic() + SECONDS
        while not done.done():
            served()
            assert time.monotonic() < until
        assert done.result().state == "succeeded"
    return (house.place / "results" / "out.txt").read_text()


Workflow = Callable[[House, Killing, str, Callable[[], None]], str]


@pytest.mark.parametrize("workflow", [old_workflow, new_workflow])
def test_with_an_old_agent_a_broker_may_be_killed_before_every_call(
    tmp_path: Path, workflow: Workflow
) -> None:
    with killing(tmp_path) as (house, rule), line_of(house, rule.line.port) as line:
        agent = OldAgent(line, tmp_path / "calc")

        def serve() -> None:
            agent.work("cp in.txt out.txt; echo done")

        assert workflow(house, rule, "old-site", serve) == "42"
        assert agent.runs == ["/opt/solver/bin/solve"]
        assert {f"{method} {BASE}{call}" for method, call in map(str.split, CALLS[4:10])} <= set(
            rule.routes
        )


@pytest.mark.parametrize("workflow", [old_workflow, new_workflow])
def test_with_a_new_agent_a_broker_may_be_killed_before_every_call(
    tmp_path: Path, workflow: Workflow
) -> None:
    with killing(tmp_path) as (house, rule):
        script = f"cat in.txt > out.txt; echo ran >> {tmp_path}/runs\n"
        (tmp_path / "solve.sh").write_text(script)

        def serve() -> None:
            failing("agent", "--once", "--dir", tmp_path / "site")

        assert workflow(house, rule, "new-site", serve) == "42"
        assert (tmp_path / "runs").read_text() == "ran\n"
        assert len([route for route in rule.routes if "/v1/site/" in route]) >= 4
