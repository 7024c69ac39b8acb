"""The description of the old protocol, row by row, against a real broker over HTTP."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from sekisho.wire.mint import job_id_of
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


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with a_house(tmp_path_factory.mktemp("house")).serving() as serving:
        yield serving


def held(workflow: OldWorkflow, agent: OldAgent, **what: Any) -> str:
    """Return a calculation whose inputs the agent has."""
    accept_id = workflow.ready(**what)
    assert agent.ask() == accept_id
    assert "calc-info" in agent.params(accept_id).json()
    return accept_id


# ------------------------------------------------------------------------- registering


def test_a_registration_is_answered_with_a_uuid(workflow: OldWorkflow) -> None:
    accept_id = workflow.add()
    assert str(UUID(accept_id)) == accept_id


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"remote-site": ""}, 400),
        ({"remote-site": "nowhere"}, "400"),
        ({"command": ""}, 400),
        ({"command": "/bin/sh"}, 401),
        ({"command": LISTED + " "}, 401),
        ({"command": LISTED + "; id"}, 401),
    ],
)
def test_a_wrong_registration_is_202_with_a_code(
    workflow: OldWorkflow, change: dict[str, str], code: Any
) -> None:
    body = a_calc()
    body["calc-info"] |= change
    assert said(workflow.line.post("add-calcinfo", json=body)) == (202, code)


@pytest.mark.parametrize("place", [1, 2])
def test_a_kind_of_file_that_is_too_long_to_keep_is_refused(
    workflow: OldWorkflow, place: int
) -> None:
    before = workflow.line.get("get-calcinfo").json()
    for length, answer in ((256, (200, 200)), (257, (202, 400))):
        body = a_calc()
        body["calc-info"]["parameter_files"]["in.txt"][place] = "x" * length
        assert said(workflow.line.post("add-calcinfo", json=body)) == answer
        assert len(workflow.line.get("get-calcinfo").json()) == len(before) + 1


@pytest.mark.parametrize("body", [b"{}", b'{"calc-info": null}', b"nonsense", b"[1]"])
def test_a_registration_without_calc_info_is_202_and_400(
    workflow: OldWorkflow, body: bytes
) -> None:
    assert said(workflow.line.post("add-calcinfo", content=body)) == (202, 400)


@pytest.mark.parametrize(
    "name",
    ["..", "a\0b", "x/..", "a\\b", "C:x", "con", "a\u202eb", "e\u0301", "a\u200b", "", ".", "a/"],
)
def test_an_input_with_a_name_that_lies_is_refused(workflow: OldWorkflow, name: str) -> None:
    answer = workflow.line.post("add-calcinfo", json=a_calc(files={name: b"1"}))
    assert said(answer) == (202, 400)


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../b", "*.csv", "a\0", "o?t"])
def test_a_result_with_a_name_that_lies_is_refused(workflow: OldWorkflow, name: str) -> None:
    assert said(workflow.line.post("add-calcinfo", json=a_calc(results=[name]))) == (202, 400)


def test_more_names_of_results_than_a_request_holds_are_refused(workflow: OldWorkflow) -> None:
    deep = "/".join(["x" * 200] * 4)
    few, many = ([f"{deep}/{n:03d}" for n in range(count)] for count in (150, 170))
    assert workflow.add(results=few)
    assert said(workflow.line.post("add-calcinfo", json=a_calc(results=many))) == (202, 400)


def test_an_input_keeps_the_last_part_of_its_path(workflow: OldWorkflow, agent: OldAgent) -> None:
    accept_id = workflow.ready(files={"../../data/in.txt": b"1", "/abs/b.txt": b"2"})
    assert agent.ask() == accept_id
    info = agent.params(accept_id).json()["calc-info"]
    assert info["parameter_files"].keys() == {"in.txt", "b.txt"}
    clash = a_calc(files={"a/x": b"1", "b/x": b"2"})
    assert said(workflow.line.post("add-calcinfo", json=clash)) == (202, 400)


def test_an_input_that_does_not_exist_is_sent_empty(workflow: OldWorkflow, agent: OldAgent) -> None:
    body = a_calc()
    body["calc-info"]["parameter_files"]["gone.txt"] = ["", "", ""]
    accept_id = first(workflow.line.post("add-calcinfo", json=body))["accept_id"]
    workflow.allow(accept_id)
    assert agent.ask() == accept_id
    files = agent.params(accept_id).json()["calc-info"]["parameter_files"]
    assert files["gone.txt"] == ["", "", ""]
    assert files["in.txt"][1:] == ["text/plain;", "charset=utf-8"]


@pytest.mark.parametrize("content", ["%%%%", "QQ", "QQ=A" + "A" * 9000, "あ"])
def test_broken_base64_is_refused(workflow: OldWorkflow, content: str) -> None:
    body = a_calc()
    body["calc-info"]["parameter_files"]["in.txt"][0] = content
    answer = workflow.line.post("add-calcinfo", json=body)
    assert answer.status_code in (202, 400)
    assert first(answer)["code"] == 400


@pytest.mark.parametrize("call", ["calc-status", "calc-progress", "get-calc-result"])
@pytest.mark.parametrize("query", [{}, {"accept_id": ""}, {"accept_id": "x"}, None])
def test_of_an_unknown_calculation_nothing_is_told(
    workflow: OldWorkflow, call: str, query: dict[str, str] | None
) -> None:
    asked = {"accept_id": str(uuid4())} if query is None else query
    assert said(workflow.line.get(call, params=asked)) == (200, 400)


# ------------------------------------------------------------------------- waiting, withdrawing


def test_waiting_is_allowed_once(workflow: OldWorkflow) -> None:
    accept_id = workflow.add()
    assert said(workflow.allow(accept_id)) == (200, 200)
    assert said(workflow.allow(accept_id)) == (400, 401)


def test_waiting_is_not_allowed_once_it_has_started(workflow: OldWorkflow, agent: OldAgent) -> None:
    accept_id = held(workflow, agent)
    assert said(workflow.allow(accept_id)) == (400, 401)
    agent.step("calc-params-complete", accept_id)
    agent.step("calc-start", accept_id)
    assert said(workflow.allow(accept_id)) == (400, 401)


@pytest.mark.parametrize("body", [b"nonsense", b"{}", b'{"accept_id": 3}', b'{"accept_id": "x"}'])
@pytest.mark.parametrize("call", ["allow-wait-calc", "cancel-wait-calc"])
def test_without_an_id_there_is_nothing_to_wait_for(
    workflow: OldWorkflow, call: str, body: bytes
) -> None:
    assert said(workflow.line.post(call, content=body)) == (400, 400)
    unknown = {"accept_id": str(uuid4())}
    assert said(workflow.line.post(call, json=unknown)) == (400, 400)


def test_only_what_waits_is_withdrawn_without_force(workflow: OldWorkflow, agent: OldAgent) -> None:
    accept_id = workflow.add()
    assert said(workflow.cancel(accept_id)) == (400, 401)
    workflow.allow(accept_id)
    assert said(workflow.cancel(accept_id)) == (200, 200)
    assert not workflow.known(accept_id)
    assert agent.ask() is None
    accept_id = workflow.ready()
    assert agent.ask() == accept_id  # it knows of it, and has taken nothing
    assert said(workflow.cancel(accept_id)) == (200, 200)
    assert not workflow.known(accept_id)
    accept_id = held(workflow, agent)
    assert said(workflow.cancel(accept_id)) == (400, 401)
    assert workflow.known(accept_id)


@pytest.mark.parametrize("more", [{}, {"delete": "force"}])
def test_what_is_withdrawn_is_kept_no_longer_than_what_was_fetched(
    house: House, workflow: OldWorkflow, more: dict[str, str]
) -> None:
    accept_id = workflow.ready()
    assert said(workflow.cancel(accept_id, **more)) == (200, 200)
    with closing(sqlite3.connect(house.config.with_name("broker.sqlite3"))) as database:
        kept = "SELECT state, received_at IS NOT NULL FROM jobs WHERE id = ?"
        assert database.execute(kept, (job_id_of(accept_id),)).fetchall() == [("cancelled", 1)]


def test_force_forgets_in_any_state(workflow: OldWorkflow, agent: OldAgent) -> None:
    draft, waiting = workflow.add(), workflow.ready()
    for accept_id in (draft, waiting):
        assert said(workflow.cancel(accept_id, delete="force")) == (200, 200)
        assert not workflow.known(accept_id)
    accept_id = held(workflow, agent)
    agent.step("calc-params-complete", accept_id)
    agent.step("calc-start", accept_id)
    assert said(workflow.cancel(accept_id, delete="force")) == (200, 200)
    assert not workflow.known(accept_id)
    assert said(agent.tell("calc-end", accept_id, result="calc end")) == (400, 400)
    assert said(workflow.cancel(accept_id, delete="force")) == (400, 400)


# ------------------------------------------------------------------------- a whole calculation


def test_every_step_moves_progress_and_status(workflow: OldWorkflow, agent: OldAgent) -> None:
    accept_id = workflow.add(results=["out.csv"])
    seen = [(workflow.progress(accept_id), workflow.status(accept_id))]

    def look() -> None:
        seen.append((workflow.progress(accept_id), workflow.status(accept_id)))

    workflow.allow(accept_id)
    look()
    assert agent.ask() == accept_id
    look()
    info = agent.params(accept_id).json()
    assert info.keys() == {"calc-info"}
    assert info["calc-info"]["command"] == LISTED
    assert info["calc-info"]["remote-site"] == "old-site"
    assert info["calc-info"]["result_files"].keys() == {"out.csv", STDOUT, STDERR}
    look()
    results = {"out.csv": {"content": "MQ==", "mimetype1": "text/plain;", "mimetype2": "c"}}
    for call, more in (
        ("calc-params-complete", {}),
        ("calc-start", {}),
        ("calc-end", {"result": "calc end"}),
        ("send-results", {"result_files": results}),
        ("end-send", {"result": "end send"}),
    ):
        early = workflow.line.get("get-calc-result", params={"accept_id": accept_id})
        assert said(early) == (200, 400)
        agent.step(call, accept_id, **more)
        look()
    assert seen == [
        ("not start", "none"),
        ("not start", "none"),
        ("not start", "none"),
        ("sending params", "none"),
        ("complete send", "none"),
        ("running", "none"),
        ("calc end", "completed"),
        ("getting return", "completed"),
        ("got return", "completed"),
    ]
    files = workflow.result(accept_id)
    assert files["out.csv"] == {"content": "MQ==", "mimetype1": "text/plain;", "mimetype2": "c"}
    assert files[STDOUT]["mimetype1"] == "Error"
    assert files[STDOUT]["mimetype2"]
    assert not workflow.known(accept_id)
    assert workflow.result(accept_id) == files  # an answer that was cut can be asked for again


def test_a_calculation_from_end_to_end(workflow: OldWorkflow, agent: OldAgent) -> None:
    accept_id = workflow.ready(files={"in.txt": "入力".encode()}, results=["out.txt", "no.txt"])
    assert agent.work("cat in.txt > out.txt; echo done; echo oops >&2; pwd > where")
    assert agent.runs == [LISTED]
    assert workflow.status(accept_id) == "completed"
    files = workflow.result(accept_id)
    assert text_of(files["out.txt"]) == "入力"
    assert (text_of(files[STDOUT]), text_of(files[STDERR])) == ("done\n", "oops\n")
    assert files["no.txt"]["mimetype1"] == "Error"
    assert "no.txt" in files["no.txt"]["mimetype2"]
    assert "where" not in files


def test_an_abnormal_end_is_told(workflow: OldWorkflow, agent: OldAgent) -> None:
    accept_id = workflow.ready(results=["out.txt"])
    assert agent.work("echo bad >&2; exit 3")
    assert (workflow.status(accept_id), workflow.progress(accept_id)) == ("abnormal", "got return")
    assert text_of(workflow.result(accept_id)[STDERR]) == "bad\n"


def test_a_result_that_nobody_asked_for_does_not_come(
    workflow: OldWorkflow, agent: OldAgent
) -> None:
    accept_id = held(workflow, agent)
    for call in ("calc-params-complete", "calc-start"):
        agent.step(call, accept_id)
    agent.step("calc-end", accept_id, result="calc end")
    names = ["../evil", "/etc/passwd", "secret.dat", STDOUT]
    file = {"content": "MQ==", "mimetype1": "t", "mimetype2": "c"}
    agent.step("send-results", accept_id, result_files=dict.fromkeys(names, file))
    agent.step("end-send", accept_id, result="end send")
    assert workflow.result(accept_id).keys() == {STDOUT, STDERR}


# ------------------------------------------------------------------------- the agent's side


def test_a_request_for_work_has_its_three_answers(agent: OldAgent) -> None:
    ask = agent.line.get
    assert said(ask("calc-request", params={"site_id": "old-site"})) == (200, "0300")
    assert said(ask("calc-request", params={"site_id": "nowhere"})) == (200, "400")
    assert said(ask("calc-request", params={"site_id": "new-site"})) == (200, "400")
    assert ask("calc-request").status_code == 400


def test_wrong_ids_are_400(workflow: OldWorkflow, agent: OldAgent) -> None:
    assert said(agent.params(str(uuid4()))) == (400, 400)
    accept_id = workflow.ready()
    other = OldAgent(agent.line, agent.base, site="nowhere")
    assert said(other.params(accept_id)) == (400, 400)
    assert said(agent.tell("calc-start", str(uuid4()))) == (400, 400)


def test_steps_out_of_order_are_refused_and_change_nothing(
    workflow: OldWorkflow, agent: OldAgent
) -> None:
    accept_id = workflow.ready()
    calls: list[tuple[str, dict[str, Any]]] = [
        ("calc-params-complete", {}),
        ("calc-start", {}),
        ("calc-end", {"result": "calc end"}),
        ("send-results", {"result_files": {}}),
        ("end-send", {"result": "end send"}),
    ]
    assert agent.ask() == accept_id
    for call, more in calls:
        assert said(agent.tell(call, accept_id, **more)) == (400, 400)
    agent.params(accept_id)
    for number, (call, more) in enumerate(calls):
        for early, beside in calls[number + 1 :]:
            assert said(agent.tell(early, accept_id, **beside)) == (400, 400), (call, early)
        agent.step(call, accept_id, **more)
        agent.step(call, accept_id, **more)  # its answer was lost
    assert workflow.progress(accept_id) == "got return"
    for call, more in calls[:4]:
        assert said(agent.tell(call, accept_id, **more)) == (400, 400)


def test_an_end_is_one_of_two_words_and_stays(workflow: OldWorkflow, agent: OldAgent) -> None:
    accept_id = held(workflow, agent)
    agent.step("calc-params-complete", accept_id)
    agent.step("calc-start", accept_id)
    assert said(agent.tell("calc-end", accept_id, result="fine")) == (400, 400)
    agent.step("calc-end", accept_id, result="abnormal")
    assert said(agent.tell("calc-end", accept_id, result="calc end")) == (400, 400)
    assert workflow.status(accept_id) == "abnormal"


def test_inputs_that_were_cut_are_sent_again_until_they_arrived(
    workflow: OldWorkflow, agent: OldAgent
) -> None:
    accept_id = held(workflow, agent)
    assert "calc-info" in agent.params(accept_id).json()
    agent.step("calc-params-complete", accept_id)
    late = agent.params(accept_id)
    assert said(late) == (200, 200)
    assert "calc-info" not in late.json()


def test_two_agents_never_get_one_calculation(
    house: House, workflow: OldWorkflow, agent: OldAgent, tmp_path: Path
) -> None:
    accept_ids = [workflow.ready() for _ in range(3)]
    with house.line() as line:
        other = OldAgent(line, tmp_path / "other")
        got = [one for _ in range(3) for one in (agent.ask(), other.ask())]
    assert sorted(x for x in got if x) == sorted(accept_ids)


def test_another_users_agent_sees_nothing(
    house: House, workflow: OldWorkflow, agent: OldAgent, tmp_path: Path
) -> None:
    accept_id = workflow.ready()
    with house.line("suzuki") as line:
        other = OldAgent(line, tmp_path / "other")
        assert other.ask() is None
        assert said(other.params(accept_id)) == (400, 400)
        stranger = OldWorkflow(line)
        assert not stranger.known(accept_id)
        assert said(stranger.cancel(accept_id, delete="force")) == (400, 400)
        assert line.get("get-calcinfo").json().get(accept_id) is None
    assert agent.ask() == accept_id


def test_settings_are_read_again_at_the_agents_wish(tmp_path: Path) -> None:
    """Kills: an answer without a reading; a broken file that takes the place of a good one."""
    house = a_house(tmp_path)
    with house.serving(), house.line() as line:
        workflow = OldWorkflow(line)
        other = a_calc(command="/opt/other")
        assert said(line.post("add-calcinfo", json=other)) == (202, 401)
        before = house.config.read_text()
        house.config.write_text(before.replace(f'solve = "{LISTED}"', 'solve = "/opt/other"'))
        assert said(line.post("add-calcinfo", json=other)) == (202, 401)
        assert said(line.post("reload-ini")) == (200, 200)
        assert said(line.post("add-calcinfo", json=other)) == (200, 200)
        assert said(line.post("add-calcinfo", json=a_calc())) == (202, 401)
        house.config.write_text("nonsense")
        assert line.post("reload-ini").status_code >= 400
        assert workflow.add(command="/opt/other")
        house.config.write_text(before)
        assert said(line.post("reload-ini")) == (200, 200)
        assert workflow.add()


# ------------------------------------------------------------------------- who may, and whether


def test_own_calculations_are_listed_without_contents(workflow: OldWorkflow) -> None:
    accept_id = workflow.add(files={"in.txt": b"secret content"})
    answer = workflow.line.get("get-calcinfo")
    assert answer.json()[accept_id]["progress"] == "not start"
    assert "parameter_files" not in answer.text


def test_a_bad_token_gets_the_gateways_answer(house: House) -> None:
    with house.line() as line:
        for header in ("Bearer wrong", "Basic eDp5", ""):
            headers = {"Authorization": header}
            answer = line.get("calc-request", params={"site_id": "old-site"}, headers=headers)
            assert answer.status_code == 403
            (entry,) = answer.json()["errors"]
            assert entry["code"] == "0005"
            assert entry["message"] == "/mi-distcomp-api/calc-requestへの実行権がありません。"


def test_a_token_of_no_such_site_is_told_of_no_site(house: House) -> None:
    with house.line("yamada") as line:
        assert said(line.post("add-calcinfo", json=a_calc())) == (202, "400")
        answer = line.get("calc-request", params={"site_id": "old-site"})
        assert said(answer) == (200, "400")


def test_answers_are_utf8_and_japanese(workflow: OldWorkflow) -> None:
    answer = workflow.line.post("add-calcinfo", content=b"x")
    assert "として読み取れません" in answer.content.decode()
    assert json.loads(answer.content)["errors"]


def test_a_body_longer_than_the_limit_is_refused(tmp_path: Path) -> None:
    settings = "[quota]\nfree_floor_bytes = 0\n[mint]\nenabled = true\nmax_body_bytes = 100000\n"
    settings += f'[mint.site.old-site]\nunguarded = true\ncommands = {{ s = "{LISTED}" }}\n'
    with a_house(tmp_path, settings).serving() as small, small.line() as line:
        answer = line.post("add-calcinfo", json=a_calc(files={"in": bytes(100_000)}))
        assert said(answer) == (413, 413)
        assert said(line.post("add-calcinfo", json=a_calc())) == (200, 200)


def test_without_the_setting_there_are_no_such_paths(tmp_path: Path) -> None:
    with a_house(tmp_path, "").serving() as plain, plain.line() as line:
        for path in ("calc-request", "get-calcinfo", "nothing"):
            assert line.get(path, params={"site_id": "old-site"}).status_code == 404
