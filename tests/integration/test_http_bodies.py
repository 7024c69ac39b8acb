"""What a caller may send: everything else is told as a problem, and nothing grows without bound."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx2
import msgspec
import pytest
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from sekisho.domain.access import Role
from sekisho.domain.errors import Unavailable
from sekisho.domain.limits import CHUNK_BYTES, MAX_CHUNK_BYTES, MAX_MESSAGE_BYTES, MIB
from sekisho.http.body import pieces, whole
from sekisho.wire.frames import Chunk, digest_of, frame, pack_chunks, pack_digests
from tests.component.broker_world import a_submission
from tests.integration.http_world import HttpWorld, code_of
from tests.virtual_time import VirtualClock, simulate
from tests.world import a_chunk

pytestmark = pytest.mark.anyio

GOOD = msgspec.to_builtins(a_submission())


def encoded(**changes: Any) -> bytes:
    return msgspec.json.encode(GOOD | changes)


BAD = {
    "nothing": b"",
    "not JSON": b"{",
    "not UTF-8": b'{"id":"\xff"}',
    "NUL": b"\0",
    "a list": b"[]",
    "null": b"null",
    "deep": b"[" * 200_000,
    "deep and closed": b"[" * 100_000 + b"]" * 100_000,
    "a huge number": b'{"queue_s":' + b"9" * 100_000 + b"}",
    "a bad id": encoded(id="job_../../etc"),
    "an id with a line feed": encoded(id=GOOD["id"] + "\n"),
    "a bad site": encoded(site="Kobe"),
    "a site with a line feed": encoded(site="kobe\n"),
    "a wrong type": encoded(has_inputs="yes"),
    "no time": encoded(queue_s=0),
    "endless time": encoded(queue_s=1e300),
    "not base64": encoded(request="%%%"),
    "missing": b'{"site":"one"}',
    "a large envelope": encoded(request=b"x" * (257 << 10)),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_message_is_refused_and_keeps_nothing(name: str) -> None:
    http_world = HttpWorld()
    async with http_world.as_role(Role.SUBMITTER, "alice") as http:
        response = await http.post("/v1/jobs", content=BAD[name])
        assert (response.status_code, code_of(response)) == (400, "message.invalid")
        assert (await http.get("/v1/jobs")).json() == {"jobs": []}


async def test_a_field_of_a_later_version_is_ignored() -> None:
    async with HttpWorld().as_role(Role.SUBMITTER, "alice") as http:
        assert (await http.post("/v1/jobs", content=encoded(later=1))).status_code == 201


@pytest.mark.parametrize(
    ("first", "last", "status", "kept"), [("one", "other", 404, []), ("other", "one", 201, ["one"])]
)
async def test_of_a_name_said_twice_the_value_that_is_judged_is_the_one_that_is_kept(
    first: str, last: str, status: int, kept: list[str]
) -> None:
    """Kills: a judgement of one value and a use of the other."""
    body = encoded(site=first).removesuffix(b"}") + b',"site":"%b"}' % last.encode()
    assert body.count(b'"site"') == 2
    async with HttpWorld().as_role(Role.SUBMITTER, "alice") as http:
        assert (await http.post("/v1/jobs", content=body)).status_code == status
        listed = (await http.get("/v1/jobs")).json()["jobs"]
    assert [job["site"] for job in listed] == kept


async def test_a_repeated_submission_is_told_apart_by_its_status() -> None:
    async with HttpWorld().as_role(Role.SUBMITTER, "alice") as http:
        first = await http.post("/v1/jobs", content=encoded())
        again = await http.post("/v1/jobs", content=encoded())
        assert (first.status_code, again.status_code) == (201, 200)
        assert first.content == again.content


@pytest.mark.parametrize("announced", [True, False])
async def test_a_message_over_the_limit_is_refused_while_it_arrives(announced: bool) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 65_536
            yield b" " * 65_536

    length = {"Content-Length": str(1 << 40)} if announced else {}
    messages = endless()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": await anext(messages), "more_body": True}

    answers: list[Any] = []

    async def send(message: Any) -> None:
        answers.append(message)

    http_world = HttpWorld()
    token = http_world.world.token(Role.SUBMITTER, "alice")
    headers = {"Authorization": f"Bearer {token}", **length}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/jobs",
        "raw_path": b"/v1/jobs",
        "query_string": b"",
        "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
    }
    await http_world.app(scope, receive, send)
    assert answers[0]["status"] == 413
    assert sent <= (0 if announced else MAX_MESSAGE_BYTES + 65_536)


async def test_a_body_that_stops_arriving_is_given_up() -> None:
    async def receive() -> dict[str, Any]:
        await anyio.sleep_forever()
        raise AssertionError

    request = Request({"type": "http", "headers": []}, receive)
    with pytest.raises(Unavailable, match="too_slow"):
        await whole(request, 10, stall_s=0.01)


def sent(clock: VirtualClock, size: int, every_s: float, length: int, taken_s: float = 0) -> int:
    """Send ``length`` bytes, ``size`` of them each ``every_s``; return how many came through."""
    left = [length]

    async def receive() -> Message:
        await anyio.sleep(every_s)
        part = min(size, left[0])
        left[0] -= part
        return {"type": "http.request", "body": bytes(part), "more_body": left[0] > 0}

    async def story() -> int:
        came = 0
        async for piece in pieces(Request({"type": "http", "headers": []}, receive)):
            came += len(piece)
            await anyio.sleep(taken_s)
        return came

    return simulate(clock, story)


def test_a_body_that_drips_is_given_up_after_a_minute_however_steadily() -> None:
    """Kills: a time-out for each piece only, which one byte a second never meets."""
    clock = VirtualClock()
    with pytest.raises(Unavailable, match="too_slow"):
        sent(clock, size=1, every_s=1, length=10_000)
    assert clock.passed == pytest.approx(60, abs=2)


def test_a_slow_line_that_is_honest_gets_all_of_a_body_through() -> None:
    """Kills: a deadline for the whole body."""
    clock = VirtualClock()
    assert sent(clock, size=20, every_s=1, length=40_000) == 40_000
    assert clock.passed == pytest.approx(2000, abs=10)


def test_what_the_broker_takes_for_itself_is_not_the_callers_slowness() -> None:
    assert sent(VirtualClock(), size=600, every_s=10, length=6000, taken_s=300) == 6000


@pytest.mark.parametrize(
    "query", ["version=x", "wait_s=-1", "wait_s=31", "wait_s=nan", "wait_s=inf", "version="]
)
async def test_bad_query_parameters_are_refused(query: str) -> None:
    http_world = HttpWorld()
    job = http_world.world.submit()
    async with http_world.as_role(Role.SUBMITTER, "alice") as http:
        response = await http.get(f"/v1/jobs/{job.id}?{query}")
        assert (response.status_code, code_of(response)) == (400, "message.invalid")


@pytest.mark.parametrize("name", ["x", "job_", "job_%2e%2e", "job_" + "0" * 25 + "u", "%00"])
async def test_what_is_no_job_id_is_refused(name: str) -> None:
    async with HttpWorld().as_role(Role.SUBMITTER, "alice") as http:
        response = await http.get(f"/v1/jobs/{name}")
        assert (response.status_code, code_of(response)) == (400, "name.invalid")


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", "Bearer {}"), ("Authorization", "Bearer {}")],
        [("Authorization", "Basic {}")],
        [("Authorization", "{}")],
        [("Authorization", "Bearer {}" + "x" * 300)],
        [("Cookie", "token={}")],
    ],
)
async def test_a_credential_has_one_form(headers: list[tuple[str, str]]) -> None:
    http_world = HttpWorld()
    token = http_world.world.token(Role.SUBMITTER, "alice")
    given = [(name, form.replace("{}", token)) for name, form in headers]
    async with http_world.client() as http:
        assert (await http.get("/v1/jobs", headers=given)).status_code == 401
        assert (await http.get("/v1/jobs", params={"token": token})).status_code == 401


# --- chunks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"x" * 35, 400, "message.invalid"),
        (pack_chunks([Chunk("0" * 64, MAX_CHUNK_BYTES + 1)]), 413, "chunk.too_large"),
        (pack_chunks([Chunk("0" * 64, 0)]), 400, "message.invalid"),
        (b"x" * (MIB + 1), 413, "message.too_large"),
    ],
)
async def test_a_bad_list_of_chunks_is_refused(body: bytes, status: int, code: str) -> None:
    http_world = HttpWorld()
    job = http_world.world.draft()
    async with http_world.as_role(Role.SUBMITTER, "alice") as http:
        response = await http.post(f"/v1/jobs/{job.id}/chunks/missing", content=body)
        assert (response.status_code, code_of(response)) == (status, code)


CHUNK, DATA = a_chunk("declared")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (frame(CHUNK.digest, DATA)[:-1], 422, "chunk.truncated"),
        (frame(CHUNK.digest, b"Declared"), 422, "chunk.digest"),
        (frame(digest_of(b"no"), b"no"), 422, "chunk.undeclared"),
        (b"\0" * 32 + b"\xff\xff\xff\xff", 413, "chunk.too_large"),
    ],
)
async def test_bad_frames_store_nothing(body: bytes, status: int, code: str) -> None:
    http_world = HttpWorld()
    world = http_world.world
    job = world.submit(has_inputs=True)
    async with http_world.as_role(Role.SUBMITTER, "alice") as http:
        await http.post(f"/v1/jobs/{job.id}/chunks/missing", content=pack_chunks([CHUNK]))
        response = await http.put(f"/v1/jobs/{job.id}/chunks", content=body)
        assert (response.status_code, code_of(response)) == (status, code)
    assert world.blobs.missing("one/alice", [CHUNK.digest]) == [CHUNK.digest]


async def test_chunks_go_in_and_out_in_streams_of_any_length() -> None:
    http_world = HttpWorld()
    world = http_world.world
    job = world.submit(has_inputs=True)
    pieces = [bytes([n]) * CHUNK_BYTES for n in range(8)]
    chunks = [Chunk(digest_of(p), len(p)) for p in pieces]
    stream = b"".join(frame(c.digest, p) for c, p in zip(chunks, pieces, strict=True))

    async def arriving() -> AsyncIterator[bytes]:
        for n in range(0, len(stream), 70_001):
            yield stream[n : n + 70_001]

    async with http_world.as_role(Role.SUBMITTER, "alice") as http:
        base = f"/v1/jobs/{job.id}/chunks"
        missing = await http.post(f"{base}/missing", content=pack_chunks(chunks))
        assert missing.content == pack_digests(c.digest for c in chunks)
        assert (await http.put(base, content=arriving())).status_code == 200
        assert (await http.post(f"{base}/missing", content=pack_chunks(chunks))).content == b""
        fetched = await http.post(f"{base}/fetch", content=missing.content)
        assert fetched.headers["content-length"] == str(len(stream))
        assert fetched.content == stream
        assert (await http.post(f"{base}/fetch", content=b"")).content == b""


@pytest.mark.parametrize(("sizes", "messages"), [([5, 400], 1), ([MIB // 2] * 5, 3)])
async def test_what_is_small_is_answered_in_one_piece_and_what_is_long_in_several(
    sizes: list[int], messages: int
) -> None:
    """Kills: a thread for each piece of a small answer; a long answer held in memory as a whole."""
    http_world, bodies = HttpWorld(), []
    job = http_world.world.submit(has_inputs=True)
    contents = [os.urandom(size) for size in sizes]
    frames = [frame(digest_of(data), data) for data in contents]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def heard(message: Message) -> None:
            bodies.append(len(message.get("body", b"")))
            await send(message)

        await http_world.app(scope, receive, heard)

    token = http_world.world.token(Role.SUBMITTER, "alice")
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=app),
        base_url="http://broker",
        headers={"Authorization": f"Bearer {token}"},
    ) as http:
        base = f"/v1/jobs/{job.id}/chunks"
        chunks = [Chunk(digest_of(data), len(data)) for data in contents]
        missing = await http.post(f"{base}/missing", content=pack_chunks(chunks))
        assert (await http.put(base, content=b"".join(frames))).status_code == 200
        bodies.clear()
        fetched = await http.post(f"{base}/fetch", content=missing.content)
    assert fetched.content == b"".join(frames)
    assert fetched.headers["content-length"] == str(len(fetched.content))
    assert sum(size > 0 for size in bodies) == messages


async def test_the_self_diagnosis_takes_a_large_body() -> None:
    async with HttpWorld().as_role(Role.SITE, "one") as http:
        answer = await http.post("/v1/site/check", content=b"x" * MIB)
        assert answer.json()["name"] == "one"
        assert (await http.post("/v1/site/check", content=b"x" * (MIB + 1))).status_code == 413
