"""Size and number: what old programs may send, and how many of them there may be."""

from __future__ import annotations

import hashlib
import threading
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from sekisho.config.broker import BrokerSettings
from sekisho.wire.mint_body import MAX_DOCUMENT_BYTES, Content, Lifted, Lifter, Weaver
from tests.compat.old_programs import House, OldAgent, OldWorkflow, a_calc, a_house, first, said

MIB = 1 << 20
BLOCK = hashlib.sha256(b"block").digest() * (MIB // 32)
SIZE_MIB = 192
#: More than a broker needs at rest, and much less than the file.
GROWTH_MIB = 96


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with a_house(tmp_path_factory.mktemp("house")).serving() as serving:
        yield serving


def peak_mib(house: House) -> int:
    """Return the most memory that the broker has held so far."""
    status = Path(f"/proc/{house.broker.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) >> 10


def blocks() -> Iterator[bytes]:
    for number in range(SIZE_MIB):
        yield number.to_bytes(32) + BLOCK[32:]


def big() -> Content:
    return Content(SIZE_MIB * MIB, blocks)


def digest_of_file(lifted: Lifted, text: str) -> str:
    piece = lifted.content(text)
    lifted.spool.seek(piece.offset)
    digest = hashlib.sha256()
    for _ in range(SIZE_MIB):
        digest.update(lifted.spool.read(MIB))
    return digest.hexdigest()


def fetched(line: httpx2.Client, call: str, place: Path, **query: str) -> Lifted:
    spool = place.open("w+b")
    with line.stream("GET", call, params=query) as response:
        lifter = Lifter(spool)
        for piece in response.iter_raw():
            lifter.feed(piece)
    return lifter.end()


def test_a_large_file_passes_both_ways_in_constant_memory(house: House, tmp_path: Path) -> None:
    expected = hashlib.sha256()
    for block in blocks():
        expected.update(block)
    with house.line() as line:
        workflow, agent = OldWorkflow(line), OldAgent(line, tmp_path / "calc")
        assert workflow.add()
        before = peak_mib(house)
        weaver = Weaver()
        calc = a_calc(results=["out.bin"])
        calc["calc-info"]["parameter_files"] = {"in.bin": [weaver.hole(big()), "", ""]}
        size, body = weaver.weave(calc)
        headers = {"Content-Length": str(size)}
        answer = line.post("add-calcinfo", content=body, headers=headers)
        assert said(answer) == (200, 200), answer.text
        accept_id = first(answer)["accept_id"]
        workflow.allow(accept_id)
        assert agent.ask() == accept_id
        query = {"site_id": "old-site", "accept_id": accept_id}
        with fetched(line, "calc-params", tmp_path / "in", **query).spool as _:
            pass
        agent.step("calc-params-complete", accept_id)
        agent.step("calc-start", accept_id)
        agent.step("calc-end", accept_id, result="calc end")
        weaver = Weaver()
        file = {"content": weaver.hole(big()), "mimetype1": "a", "mimetype2": "b"}
        message = {"accept_id": accept_id, "site_id": "old-site", "result_files": {"out.bin": file}}
        size, body = weaver.weave(message)
        headers = {"Content-Length": str(size)}
        assert said(line.post("send-results", content=body, headers=headers)) == (200, 200)
        agent.step("end-send", accept_id, result="end send")
        lifted = fetched(line, "get-calc-result", tmp_path / "out", accept_id=accept_id)
        result = lifted.decoded(dict)["result-info"]["result_files"]["out.bin"]
        assert digest_of_file(lifted, result["content"]) == expected.hexdigest()
        lifted.spool.close()
    assert peak_mib(house) - before < GROWTH_MIB


def test_unless_set_otherwise_two_gib_of_base64_may_pass_both_ways() -> None:
    """Kills: a limit by default that is less than what old programs could always send."""
    settings, content = BrokerSettings(), 3 << 29
    assert settings.mint.max_body_bytes >= content // 3 * 4 + MAX_DOCUMENT_BYTES
    quota = settings.quota
    assert min(quota.job_bytes, quota.user_bytes, quota.site_bytes) >= 2 * content


def test_a_body_that_never_ends_leaves_nothing_behind(house: House) -> None:
    text = b'{"calc-info": {"parameter_files": {"a": ["' + b64encode(BLOCK)

    def cut() -> Iterator[bytes]:
        yield text
        raise ConnectionAbortedError

    with house.line() as line:
        before = line.get("get-calcinfo").json()
        with pytest.raises(ConnectionAbortedError):
            line.post("add-calcinfo", content=cut())
        assert line.get("get-calcinfo").json() == before


def test_old_agents_that_ask_at_once_get_every_calculation_once(
    house: House, tmp_path: Path
) -> None:
    number, asking, times = 60, 20, 5
    with house.line() as line:
        workflow = OldWorkflow(line)
        while OldAgent(line, tmp_path).ask():
            pass
        with ThreadPoolExecutor(4) as pool:
            ready = list(pool.map(lambda _: workflow.ready(), range(number)))
    start, got, lock = threading.Barrier(asking), [], threading.Lock()

    def ask(_: int) -> None:
        with house.line() as own:
            agent = OldAgent(own, tmp_path)
            start.wait(60)
            for _ in range(times):
                if accept_id := agent.ask():
                    with lock:
                        got.append(accept_id)

    with ThreadPoolExecutor(asking) as pool:
        list(pool.map(ask, range(asking)))
    assert sorted(got) == sorted(ready)
