"""Bodies and names that no honest program sends: refused in the old form, with no effect."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sekisho.broker.ports import JobFilter
from sekisho.domain.errors import StorageFull, UsageError
from sekisho.domain.job import JobState
from sekisho.wire.frames import Frame
from sekisho.wire.mint import MAX_FILES, input_name, result_name
from tests.compat.old_programs import STDOUT, OldAgent, OldWorkflow, a_calc, first, said
from tests.compat.old_world import OldWorld, old_world

POSTS = (
    "add-calcinfo",
    "allow-wait-calc",
    "cancel-wait-calc",
    "calc-params-complete",
    "calc-start",
    "calc-end",
    "send-results",
    "end-send",
)
GETS = ("calc-status", "calc-progress", "get-calc-result", "calc-request", "calc-params")
REFUSED = {200, 202, 400, 403, 413}


@pytest.fixture(scope="module")
def world() -> Iterator[OldWorld]:
    with old_world() as made:
        yield made


@pytest.fixture(scope="module")
def workflow(world: OldWorld) -> OldWorkflow:
    return world.workflow()


@pytest.fixture(scope="module")
def agent(world: OldWorld) -> OldAgent:
    return world.agent()


# ------------------------------------------------------------------------- bodies

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=30),
    st.sampled_from(["old-site", "../x", "\0", "force", "calc end", "end send", "Error", "QQ=="]),
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
KEYS = ("accept_id", "site_id", "delete", "result", "result_files", "calc-info")


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Bytes; a message with wrong values in its places; a good one with a hole or a cut."""
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return draw(st.binary(max_size=200))
    if kind == 1:
        return json.dumps({key: draw(JSON) for key in KEYS}).encode()
    message: Any = a_calc(results=["out.txt"]) | {"accept_id": "x", "site_id": "old-site"}
    if kind == 2:
        place = draw(st.sampled_from([message, message["calc-info"]]))
        place[draw(st.sampled_from(sorted(place)))] = draw(JSON)
    text = json.dumps(message, ensure_ascii=draw(st.booleans())).encode()
    at = draw(st.integers(0, len(text)))
    return text[:at] if kind == 3 else text[:at] + draw(st.binary(max_size=2)) + text[at:]


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.sampled_from(POSTS), bodies())
def test_whatever_is_sent_gets_an_answer_of_the_old_form(
    workflow: OldWorkflow, call: str, body: bytes
) -> None:
    """Kills: a field whose kind is not checked, an exception that becomes a 500."""
    answer = workflow.line.post(call, content=body)
    assert answer.status_code in REFUSED, answer.text
    assert first(answer)["message"]


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.sampled_from(GETS),
    st.dictionaries(st.sampled_from(["accept_id", "site_id", "x"]), st.text(max_size=40)),
)
def test_whatever_is_asked_gets_an_answer_of_the_old_form(
    workflow: OldWorkflow, call: str, query: dict[str, str]
) -> None:
    answer = workflow.line.get(call, params=query)
    assert answer.status_code in REFUSED, answer.text
    assert first(answer)["message"]


DEEP = b'{"calc-info": ' + b"[" * 100_000
ODD = {
    "deep": DEEP,
    "deep in results": b'{"calc-info": {"result_files": {"a": ' + b'{"b":' * 50_000,
    "half a surrogate": b'{"calc-info": {"command": "\\ud800"}}',
    "not UTF-8": b'{"calc-info": {"command": "\xff"}}',
    "twice the same key": b'{"calc-info": {}, "calc-info": {"command": "/bin/sh"}}',
    "a list of pairs": b'[["calc-info", {}]]',
    "a BOM": b"\xef\xbb\xbf{}",
    "a number too large": b'{"calc-info": 1e999999}',
    "UTF-16": '{"calc-info": {}}'.encode("utf-16"),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("call", ["add-calcinfo", "send-results", "allow-wait-calc"])
def test_json_that_is_odd_is_refused(workflow: OldWorkflow, call: str, name: str) -> None:
    answer = workflow.line.post(call, content=ODD[name])
    assert answer.status_code in (202, 400), answer.text
    assert str(first(answer)["code"]) == "400"


def test_more_files_than_anybody_has_are_refused(workflow: OldWorkflow) -> None:
    many = a_calc(files={f"{n}.txt": b"" for n in range(MAX_FILES + 1)})
    assert said(workflow.line.post("add-calcinfo", json=many)) == (202, 400)
    some = a_calc(files={f"{n}.txt": b"1" for n in range(100)})
    assert said(workflow.line.post("add-calcinfo", json=some)) == (200, 200)


@pytest.mark.parametrize("place", ["command", "parameters", "remote-site"])
def test_a_text_of_a_megabyte_is_no_command(workflow: OldWorkflow, place: str) -> None:
    body = a_calc()
    body["calc-info"][place] = b64encode(b"a" * (1 << 20)).decode()
    assert said(workflow.line.post("add-calcinfo", json=body))[0] in (202, 400)


def test_what_no_disk_holds_is_refused_and_not_registered() -> None:
    """Kills: filling the broker's disk by a body that it only passes on."""
    with old_world() as small:
        workflow, policy = small.workflow(), small.http.world.policy
        policy.value = replace(policy.value, free_floor_bytes=1 << 40)
        answer = workflow.line.post("add-calcinfo", json=a_calc(files={"a": bytes(10_000)}))
        assert said(answer) == (507, 507)
        assert workflow.line.get("get-calcinfo").json() == {}
        endless = b'{"calc-info": {"parameter_files": {"a": ["' + b"A" * (2 << 20)
        for call in ("add-calcinfo", "send-results"):
            assert said(workflow.line.post(call, content=endless)) == (507, 507)
        policy.value = replace(policy.value, free_floor_bytes=0)
        for call in ("add-calcinfo", "send-results"):
            assert said(workflow.line.post(call, content=endless)) == (400, 400)
        assert workflow.add()


def test_what_could_not_be_stored_whole_is_not_registered() -> None:
    """Kills: a draft that nobody knows of, which counts among the user's jobs until it expires."""
    with old_world() as small:
        workflow, blobs = small.workflow(), small.http.world.blobs
        put, asked = blobs.put, []

        def full(space: str, frames: Sequence[Frame]) -> None:
            asked.append((space, len(frames)))
            raise StorageFull

        blobs.put = full  # type: ignore[method-assign]
        assert said(workflow.line.post("add-calcinfo", json=a_calc())) == (507, 507)
        assert asked
        assert workflow.line.get("get-calcinfo").json() == {}
        (left,) = small.http.world.desk.jobs.every(JobFilter(submitter="alice"))
        assert left.state is JobState.CANCELLED
        blobs.put = put  # type: ignore[method-assign]
        assert workflow.add()


def test_who_has_a_users_share_of_jobs_is_refused() -> None:
    with old_world() as small:
        workflow, policy = small.workflow(), small.http.world.policy
        quota = replace(policy.value.submitter, live_jobs=1)
        policy.value = replace(policy.value, submitter=quota)
        assert workflow.add()
        refused = workflow.line.post("add-calcinfo", json=a_calc())
        assert refused.status_code >= 400
        assert first(refused)["reason"] == "quota.jobs"
        assert small.workflow("bob").add()


BAD_BASE64 = ("%%%%", "QQ", "QQ=", "Q===", "QQ==QQ==", "あああ", "QQ==\0", "QQ-_", "=" * 4000)


@pytest.mark.parametrize("content", BAD_BASE64)
def test_results_that_are_no_base64_are_refused_and_can_be_sent_again(
    world: OldWorld, content: str
) -> None:
    workflow, agent = world.workflow("bob"), world.agent("bob")
    accept_id = workflow.ready()
    assert agent.ask() == accept_id
    agent.params(accept_id)
    for call, more in (
        ("calc-params-complete", {}),
        ("calc-start", {}),
        ("calc-end", {"result": "calc end"}),
    ):
        agent.step(call, accept_id, **more)
    file = {"content": content, "mimetype1": "t", "mimetype2": "c"}
    refused = agent.tell("send-results", accept_id, result_files={STDOUT: file})
    assert said(refused) == (400, 400)
    assert workflow.progress(accept_id) == "calc end"
    agent.step("send-results", accept_id, result_files={STDOUT: file | {"content": "MQ=="}})
    agent.step("end-send", accept_id, result="end send")
    assert workflow.result(accept_id)[STDOUT]["content"] == "MQ=="


def test_a_missing_file_with_a_content_is_missing(world: OldWorld) -> None:
    workflow, agent = world.workflow("bob"), world.agent("bob")
    accept_id = workflow.ready()
    assert agent.ask() == accept_id
    agent.params(accept_id)
    agent.step("calc-params-complete", accept_id)
    agent.step("calc-start", accept_id)
    agent.step("calc-end", accept_id, result="calc end")
    file = {"content": "MQ==", "mimetype1": "Error", "mimetype2": "ありません。"}
    agent.step("send-results", accept_id, result_files={STDOUT: file})
    agent.step("end-send", accept_id, result="end send")
    assert workflow.result(accept_id)[STDOUT] == file | {"content": ""}


# ------------------------------------------------------------------------- names

#: What leads out, is invisible, turns round, or means another file somewhere.
LIES = (
    "..",
    ".",
    "",
    "a/..",
    "a\\..\\b",
    "..\\b",
    "C:b",
    "a\0b",
    "a\nb",
    "a\x1bb",
    "a\x7fb",
    "a\u0085b",
    "a\u2028b",
    "a\u202eb",
    "a\u200bb",
    "a\u200db",
    "\ufeffa",
    "a\u00ad",
    "e\u0301",  # NFD of é
    "か\u3099",  # NFD of が
    "\u212b",  # the Ångström sign, whose NFC is another letter
    "a ",
    "a.",
    " a",
    "nul",
    "COM1.txt",
    "a" * 256,
    "あ" * 86,
)


@pytest.mark.parametrize("name", LIES, ids=ascii)
def test_a_name_that_lies_is_refused_on_either_side(workflow: OldWorkflow, name: str) -> None:
    assert said(workflow.line.post("add-calcinfo", json=a_calc(files={name: b"1"}))) == (202, 400)
    assert said(workflow.line.post("add-calcinfo", json=a_calc(results=[name]))) == (202, 400)
    with pytest.raises(UsageError):
        input_name(name)
    with pytest.raises(UsageError):
        result_name(name)


@pytest.mark.parametrize("name", ["../a", "/etc/a", "a//b", "./a", "a/./b", "~/../a", "*", "a?"])
def test_a_result_that_leads_elsewhere_is_refused(workflow: OldWorkflow, name: str) -> None:
    assert said(workflow.line.post("add-calcinfo", json=a_calc(results=[name]))) == (202, 400)


#: Letters that look like dots and slashes and are neither: one name each, in one directory.
LOOKALIKES = (
    "\uff0e\uff0e",
    "\uff0e\uff0e\uff0f\uff41",
    "..\uff0fa",
    "a\u2215b",
    "a\u2044b",
    "\u2024\u2024",
    "\u2026",
    "\uff052e\uff052e",
    "%2e%2e",
    "\uff3ca",
    "A",
    "\u0430",
)


@pytest.mark.parametrize("name", LOOKALIKES, ids=ascii)
def test_letters_that_look_like_dots_and_slashes_are_letters(world: OldWorld, name: str) -> None:
    """They stay what they are on the way, so that no later step can make a path of them."""
    workflow, agent = world.workflow("bob"), world.agent("bob")
    accept_id = workflow.ready(files={name: b"1"}, results=[name])
    assert agent.ask() == accept_id
    info = agent.params(accept_id).json()["calc-info"]
    assert list(info["parameter_files"]) == [name]
    assert name in info["result_files"]
    workflow.cancel(accept_id, delete="force")
    agent.tell("calc-params-complete", accept_id)


@pytest.mark.parametrize(
    ("one", "other"), [("A.txt", "a.txt"), ("ß", "ss"), ("x/a", "y/a"), ("Σ", "ς")]
)
def test_two_names_of_one_file_are_refused(workflow: OldWorkflow, one: str, other: str) -> None:
    both = a_calc(files={one: b"1", other: b"2"})
    assert said(workflow.line.post("add-calcinfo", json=both)) == (202, 400)
