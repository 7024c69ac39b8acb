"""Old and new programs in every mixture, over a real broker, also one that is restarted."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sekisho.api import Client, CommandFailed, JobRefused, JobSpec, connect
from sekisho.cli.exit import LATER
from sekisho.wire.mint import accept_id_of, job_id_of
from tests.compat.old_programs import (
    LISTED,
    STDERR,
    STDOUT,
    House,
    OldAgent,
    OldWorkflow,
    a_calc,
    a_house,
    first,
    said,
    text_of,
)
from tests.faults.trio import private
from tests.forked import AS_TYPED
from tests.integration.http_process import failing, sekisho
from tests.waiting import until

MANIFEST = """\
schema = 1
site = "new-site"
submitters = ["tanaka"]

[[command]]
name = "solve"
mint_command = "/opt/solver/bin/solve"
argv = ["/bin/sh", "{place}/solve.sh", ["{{mint_parameters}}"]]
time_limit_s = 60
stdout = {{ release = true }}
[command.parameters.mint_parameters]
type = "text"
pattern = "[a-z ]+"
[[command.input]]
path = "*.txt"
[[command.output]]
path = "out.txt"
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    place = tmp_path_factory.mktemp("house")
    with a_house(place).serving() as serving:
        prepared(serving, serving.url)
        (place / "solve.sh").write_text('cat in.txt > out.txt; echo "said $1"; echo no > secret\n')
        yield serving


def prepared(house: House, url: str) -> None:
    """Let the new site join, and give tanaka a client, both by way of ``url``."""
    place = house.place
    home = place / "site"
    sekisho(
        "site", "init", "--dir", home, "--site", "new-site", "--user", "tanaka", "--broker", url
    )
    sekisho("site", "join", "--dir", home, "--invitation-file", place / "invitation")
    (home / "manifest.toml").write_text(MANIFEST.format(place=place))
    private(place / "token", house.token("tanaka"))
    reach = ("--broker", url, "--token-file", place / "token")
    sekisho("--config", place / "client.toml", "client", "init", *reach)


@pytest.fixture
def client(house: House) -> Iterator[Client]:
    with connect(house.place / "client.toml") as client:
        yield client


def serve_once(house: House) -> None:
    """Let the new agent do all that it can without waiting."""
    status, text = failing("agent", "--once", "--dir", house.place / "site")
    assert status in (0, LATER), text


def serve_until(house: House, ended: Callable[[], bool]) -> None:
    for _ in range(20):
        serve_once(house)
        if ended():
            return
    raise AssertionError("the new agent did not come to an end")


def serve_until_returned(house: House, workflow: OldWorkflow, accept_id: str) -> None:
    serve_until(house, lambda: workflow.progress(accept_id) == "got return")


def in_background(agent: OldAgent, program: str) -> threading.Thread:
    def work() -> None:
        while not agent.work(program):
            pass

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_job_of_a_new_client_is_none_that_old_ones_know(
    client: Client, workflow: OldWorkflow
) -> None:
    job = client.submit(JobSpec(site="new-site", command="solve", parameters={}))
    accept_id = accept_id_of(job.id)
    assert accept_id not in workflow.line.get("get-calcinfo").json()
    assert not workflow.known(accept_id)
    assert said(workflow.cancel(accept_id, delete="force")) == (400, 400)
    assert job.refresh().state == "queued"
    job.cancel()


def test_an_old_workflow_and_an_old_agent(workflow: OldWorkflow, agent: OldAgent) -> None:
    accept_id = workflow.ready(files={"in.txt": b"42"}, results=["out.txt"])
    assert agent.work("cp in.txt out.txt; echo done")
    assert text_of(workflow.result(accept_id)["out.txt"]) == "42"


def test_an_old_workflow_and_a_new_agent(house: House, workflow: OldWorkflow) -> None:
    accept_id = workflow.ready(site="new-site", files={"in.txt": b"42"}, results=["out.txt"])
    serve_until_returned(house, workflow, accept_id)
    assert workflow.status(accept_id) == "completed"
    files = workflow.result(accept_id)
    assert text_of(files["out.txt"]) == "42"
    assert files["out.txt"]["mimetype2"] == "charset=us-ascii"
    assert text_of(files[STDOUT]) == "said \n"
    assert files[STDERR]["mimetype1"] == "Error"
    assert not workflow.known(accept_id)


@pytest.mark.parametrize(
    "what",
    [
        {"command": "/opt/other"},
        {"files": {"in.bin": b"1"}},
        {"results": ["secret"]},
    ],
)
def test_what_the_manifest_does_not_allow_ends_abnormally(
    house: House, workflow: OldWorkflow, what: dict[str, Any]
) -> None:
    accept_id = workflow.ready(site="new-site", **what)
    serve_until_returned(house, workflow, accept_id)
    assert workflow.status(accept_id) == "abnormal"
    files = workflow.result(accept_id)
    assert {file["content"] for file in files.values()} == {""}
    assert all(file["mimetype2"] for file in files.values())


def test_the_free_text_goes_to_the_parameter_that_the_manifest_declares(
    house: House, workflow: OldWorkflow
) -> None:
    body = a_calc(site="new-site", files={"in.txt": b"1"}, results=["out.txt"])
    body["calc-info"]["parameters"] = "twice as fine"
    accept_id = first(workflow.line.post("add-calcinfo", json=body))["accept_id"]
    workflow.allow(accept_id)
    serve_until_returned(house, workflow, accept_id)
    assert text_of(workflow.result(accept_id)[STDOUT]) == "said twice as fine\n"


def test_a_new_client_and_an_old_agent(client: Client, agent: OldAgent, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("42")
    inputs = {"in.txt": tmp_path / "in.txt"}
    spec = JobSpec(site="old-site", command="solve", inputs=inputs, outputs=["out.txt"])
    job = client.submit(spec)
    thread = in_background(agent, "cp in.txt out.txt; echo done; echo x > secret")
    result = job.result(tmp_path / "results")
    thread.join(30)
    assert agent.runs == [LISTED]
    assert {file.name for file in result.files} == {"out.txt", STDOUT, STDERR}
    assert (tmp_path / "results" / "out.txt").read_text() == "42"


def test_a_new_client_learns_of_an_abnormal_end(
    client: Client, agent: OldAgent, tmp_path: Path
) -> None:
    job = client.submit(JobSpec(site="old-site", command="solve"))
    thread = in_background(agent, "exit 7")
    with pytest.raises(CommandFailed) as caught:
        job.result(tmp_path / "results")
    thread.join(30)
    assert caught.value.result.code == "mint.abnormal"


@pytest.mark.parametrize(
    "what",
    [
        {"command": "other"},
        {"parameters": {"n": 1}},
        {"outputs": ["*.csv"]},
        {"inputs": {"folder/in.txt": "given"}},
    ],
)
def test_what_an_old_agent_cannot_do_is_refused_in_its_place(
    client: Client, agent: OldAgent, tmp_path: Path, what: dict[str, Any]
) -> None:
    (tmp_path / "given").write_text("1")
    if "inputs" in what:
        what = {"inputs": {name: tmp_path / file for name, file in what["inputs"].items()}}
    job = client.submit(JobSpec(**({"site": "old-site", "command": "solve"} | what)))
    assert agent.ask() is None
    with pytest.raises(JobRefused):
        job.result(tmp_path / "results")


def test_a_command_that_the_operator_switched_off_is_refused(
    house: House, workflow: OldWorkflow, agent: OldAgent
) -> None:
    accept_id = workflow.ready()
    words = ("broker", "site", "{}", "old-site", "--command", "solve", "--config", house.config)
    sekisho(*(str(word).format("disable") for word in words))
    assert agent.ask() is None
    assert workflow.status(accept_id) == "abnormal"
    sekisho(*(str(word).format("enable") for word in words))


def test_new_and_new_are_untouched(house: House, client: Client, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("42")
    inputs = {"in.txt": tmp_path / "in.txt"}
    job = client.submit(JobSpec(site="new-site", command="solve", inputs=inputs, outputs=["*.txt"]))
    serve_until(house, lambda: job.refresh().state == "succeeded")
    result = job.result(tmp_path / "results")
    assert "out.txt" in {file.name for file in result.files}
    with house.line() as line:
        assert not line.get("get-calcinfo").json().keys() & {job.id}


def figures(house: House) -> str:
    if "watcher" not in house.tokens:
        words = ("token", "create", "--role", "admin", "--user", "watcher", "--show")
        house.tokens["watcher"] = sekisho("broker", *words, "--config", house.config)
    with house.line("watcher", "/") as line:
        return line.get("metrics").text


def test_an_unguarded_site_is_marked_wherever_it_is_shown(
    house: House, workflow: OldWorkflow, client: Client
) -> None:
    accept_id = workflow.add()
    job = job_id_of(accept_id)
    other = client.submit(JobSpec(site="new-site", command="nothing"))
    assert {site.id: site.unguarded for site in client.sites()} == {
        "old-site": True,
        "new-site": False,
    }
    assert client.job(job).view.unguarded
    assert not client.job(other.id).view.unguarded
    mine = ("--config", house.place / "client.toml")
    for words in (("sites",), ("jobs",), ("show", job)):
        text = sekisho(*mine, "--lang", "en", *words)
        assert "unguarded" in text, words
        assert '"unguarded":true' in sekisho(*mine, *words, "--json").replace(": ", ":"), words
    marked = [x for x in sekisho(*mine, "--lang", "en", "jobs").splitlines() if "unguarded" in x]
    assert all("old-site" in line for line in marked)
    operator = ("--config", house.config)
    for words in (("site", "list"), ("jobs",)):
        told = sekisho("--lang", "en", "broker", *words, *operator)
        assert "unguarded" in told.splitlines()[0]
        assert '"unguarded":true' in sekisho("broker", *words, "--json", *operator)
    assert '"unguarded":true' in sekisho("broker", "show", job, "--json", *operator)
    assert '"unguarded":["old-site"]' in sekisho("broker", "status", "--json", *operator)
    shown = figures(house)
    assert 'sekisho_site_unguarded{site="old-site"} 1' in shown
    assert 'sekisho_site_unguarded{site="new-site"} 0' in shown
    with house.line("watcher", "/v1/") as line:
        assert line.get("admin/status").json()["unguarded"] == ["old-site"]
        jobs = line.get("admin/jobs").json()["jobs"]
    assert {j["site"] for j in jobs if j.get("unguarded")} == {"old-site"}
    other.cancel()


def test_the_operator_sees_when_the_old_paths_were_used_last(
    house: House, workflow: OldWorkflow, agent: OldAgent
) -> None:
    workflow.ready()
    assert agent.ask()
    shown = figures(house)
    assert 'sekisho_mint_calls_total{call="calc-request",status="200"}' in shown
    assert 'sekisho_mint_site_calls_total{side="workflow",site="old-site"}' in shown
    assert 'sekisho_mint_site_calls_total{side="agent",site="old-site"}' in shown
    words = ("broker", "site", "list", "--json", "--config", house.config)
    deadline = time.monotonic() + 60
    while True:  # uses are written down some seconds later
        sites = {site["id"]: site for site in json.loads(sekisho(*words))}
        uses = {use["side"]: use["calls"] for use in sites["old-site"]["mint_uses"]}
        if uses.keys() == {"agent", "workflow"}:
            break
        assert time.monotonic() < deadline, sites
    assert sites["old-site"]["mint_last_at"]
    status = json.loads(sekisho("broker", "status", "--json", "--config", house.config))
    assert "old-site" in status["mint_last_at"]


# ------------------------------------------------------------------------- stopping


def test_what_an_old_workflow_deletes_by_force_is_stopped_at_a_new_agent(
    house: House, workflow: OldWorkflow, client: Client
) -> None:
    script = house.place / "solve.sh"
    before = script.read_text()
    script.write_text("echo $$ > $CALC_DIR/pid; exec sleep 3600\n")
    try:
        accept_id = workflow.ready(site="new-site", files={"in.txt": b"42"}, results=["out.txt"])
        with agent_process(house):
            until(lambda: workflow.progress(accept_id) == "running")
            stopped(house, workflow, client, accept_id)
    finally:
        script.write_text(before)


@contextmanager
def agent_process(house: House) -> Iterator[None]:
    """Let the new agent run beside the block."""
    argv = [*AS_TYPED, "agent", "--dir", str(house.place / "site")]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def stopped(house: House, workflow: OldWorkflow, client: Client, accept_id: str) -> None:
    """Delete the running calculation, and see it die."""
    (pid,) = (int(file.read_text()) for file in (house.place / "site").rglob("pid"))
    assert Path(f"/proc/{pid}").exists()
    assert said(workflow.cancel(accept_id)) == (400, 401)
    assert said(workflow.cancel(accept_id, delete="force")) == (200, 200)
    assert not workflow.known(accept_id)
    job = client.job(job_id_of(accept_id))
    until(lambda: job.refresh().state == "cancelled")
    until(lambda: not Path(f"/proc/{pid}").exists())


def test_what_a_new_client_cancels_ends_at_an_old_agents_next_word(
    client: Client, agent: OldAgent
) -> None:
    job = client.submit(JobSpec(site="old-site", command="solve"))
    accept_id = agent.ask()
    assert accept_id is not None
    assert "calc-info" in agent.params(accept_id).json()
    agent.step("calc-params-complete", accept_id)
    agent.step("calc-start", accept_id)
    job.cancel()
    assert job.refresh().state == "running"  # nobody has seen it dead yet
    assert said(agent.tell("calc-end", accept_id, result="calc end")) == (400, 400)
    assert job.refresh().state == "cancelled"


def test_a_new_client_may_look_after_what_an_old_one_registered(
    client: Client, workflow: OldWorkflow, agent: OldAgent, tmp_path: Path
) -> None:
    accept_id = workflow.ready(files={"in.txt": b"42"}, results=["out.txt"])
    assert agent.work("cp in.txt out.txt")
    job = client.job(job_id_of(accept_id))
    assert job.result(tmp_path / "results").state == "succeeded"
    assert (tmp_path / "results" / "out.txt").read_text() == "42"
    assert text_of(workflow.result(accept_id)["out.txt"]) == "42"
