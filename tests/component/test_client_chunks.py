"""Chunks over HTTP against a line that misbehaves in every way that proxies know."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from sekisho.adapters.chunks_https import HttpsChunks
from sekisho.adapters.chunks_memory import MemoryChunks
from sekisho.adapters.http_line import HttpLine
from sekisho.adapters.part_size import LONGEST_BYTES
from sekisho.adapters.patience import Patience
from sekisho.domain.errors import IntegrityError, SekishoError, TooLarge, Unreachable
from sekisho.domain.limits import CHUNK_BYTES, MAX_PART_BYTES, MIB
from sekisho.transfer.cut import LEAST_BYTES
from sekisho.transfer.fetch import fetch_tree
from sekisho.transfer.send import send_tree
from sekisho.transfer.source import LocalTree, scan
from sekisho.wire.frames import (
    Chunk,
    FrameReader,
    digest_of,
    frame,
    unpack_chunks,
    unpack_digests,
)
from tests.memory_sender import memory_sender

Fault = Callable[[httpx2.Request, httpx2.Response], httpx2.Response]


class CutStream(httpx2.SyncByteStream):
    """An answer that breaks off after some bytes."""

    def __init__(self, data: bytes, *, loudly: bool) -> None:
        self._data = data
        self._loudly = loudly

    def __iter__(self) -> Iterator[bytes]:
        yield self._data
        if self._loudly:
            raise httpx2.ReadError("cut")


class ChunkServer(httpx2.BaseTransport):
    """The three chunk routes over memory, with a limit on bodies and faults to come."""

    def __init__(self) -> None:
        self.port = MemoryChunks()
        self.max_body = 1 << 20
        self.requests: list[tuple[str, str, int]] = []
        self.questions: list[tuple[str, str, int]] = []  #: path, query, bytes
        self.faults: list[Fault] = []
        self.garble: list[
            Callable[[bytes], bytes]
        ] = []  #: what befalls the bodies of files to come

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = self._handle(request)
        if isinstance(answer.stream, CutStream):
            return answer
        stream = CutStream(answer.read(), loudly=False)  # as it comes from a socket: not read yet
        return httpx2.Response(answer.status_code, stream=stream)

    def _handle(self, request: httpx2.Request) -> httpx2.Response:
        body = request.read()
        self.requests.append((request.method, request.url.path, len(body)))
        self.questions.append((request.url.path, request.url.query.decode(), len(body)))
        if len(body) > self.max_body:
            return httpx2.Response(413, text="<html>too large</html>")
        assert request.headers["Content-Length"] == str(len(body))
        try:
            answer = self._answer(request.method, request.url.path.rsplit("/", 1)[-1], body)
        except SekishoError as error:
            problem = {"type": "x", "status": error.http_status, "code": error.code}
            answer = httpx2.Response(error.http_status, json=problem)
        return self.faults.pop(0)(request, answer) if self.faults else answer

    def _answer(self, method: str, verb: str, body: bytes) -> httpx2.Response:
        if method == "PUT":
            body = self.garble.pop(0)(body) if self.garble else body
            reader = FrameReader()
            self.port.send(reader.feed(body))
            reader.end()
            return httpx2.Response(200, json={})
        if verb == "missing":
            missing = self.port.missing(unpack_chunks(body))
            return httpx2.Response(200, content=b"".join(bytes.fromhex(c.digest) for c in missing))
        by_digest = {c.digest: c for c in self.port.declared}
        chunks = [by_digest[d] for d in unpack_digests(body)]
        frames = b"".join(frame(c.digest, data) for c, data in self.port.fetch(chunks))
        return httpx2.Response(200, content=frames)


class World:
    def __init__(self, limit_s: float | None = 1000) -> None:
        self.server = ChunkServer()
        self.now = 0.0
        patience = Patience(limit_s=limit_s, wait=self._wait, monotonic=lambda: self.now)
        line = HttpLine(memory_sender(self.server), patience)
        self.chunks = HttpsChunks(line, "v1/jobs/j/chunks", {"epoch": "3"})

    def _wait(self, seconds: float) -> bool:
        self.now += seconds
        return False


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def local(tmp_path: Path) -> LocalTree:
    (tmp_path / "big").write_bytes(os.urandom(3 * CHUNK_BYTES + 17))
    for n in range(40):
        (tmp_path / f"small{n}").write_bytes(os.urandom(900))
    return LocalTree(scan([("in", tmp_path)]))


def bad_gateway(_request: httpx2.Request, _answer: httpx2.Response) -> httpx2.Response:
    """The broker did it; the answer is lost."""
    return httpx2.Response(502, text="<html>bad gateway</html>")


def cut(at: int, *, loudly: bool) -> Fault:
    def fault(_request: httpx2.Request, answer: httpx2.Response) -> httpx2.Response:
        return httpx2.Response(200, stream=CutStream(answer.read()[:at], loudly=loudly))

    return fault


def refuse(_request: httpx2.Request, _answer: httpx2.Response) -> httpx2.Response:
    raise httpx2.ConnectError("refused")


def round_trip(world: World, local: LocalTree, into: Path) -> None:
    ref = send_tree(local.tree, local.read, world.chunks)
    assert fetch_tree(ref, world.chunks, into) == local.tree


def test_a_tree_goes_there_and_back_in_bodies_that_a_default_proxy_lets_through(
    world: World, local: LocalTree, tmp_path: Path
) -> None:
    round_trip(world, local, tmp_path / "out")
    puts = [size for method, _, size in world.server.requests if method == "PUT"]
    assert max(puts) <= MAX_PART_BYTES
    assert len(puts) < 10  # small files share a body


def test_every_request_says_under_which_offer_it_speaks(world: World) -> None:
    seen: list[str] = []

    def look(request: httpx2.Request, answer: httpx2.Response) -> httpx2.Response:
        seen.append(request.url.query.decode())
        return answer

    chunk = Chunk("0" * 64, 1)
    world.server.faults = [look]
    world.chunks.missing([chunk])
    assert seen == ["epoch=3"]


def test_a_smaller_limit_on_the_way_makes_smaller_parts(
    world: World, local: LocalTree, tmp_path: Path
) -> None:
    world.server.max_body = max(c.size for c in local.tree.chunks()) + 100
    round_trip(world, local, tmp_path / "out")


def puts(world: World) -> list[int]:
    return [size for method, _, size in world.server.requests if method == "PUT"]


@pytest.fixture
def large(tmp_path: Path) -> LocalTree:
    (tmp_path / "large").write_bytes(os.urandom(24 * MIB))
    return LocalTree(scan([("in", tmp_path / "large")]))


def test_parts_grow_while_the_line_is_quick(world: World, large: LocalTree, tmp_path: Path) -> None:
    world.server.max_body = 1 << 30
    round_trip(world, large, tmp_path / "out")
    assert puts(world)[0] <= MAX_PART_BYTES
    assert 2 * MIB < max(puts(world)) <= LONGEST_BYTES
    assert len(puts(world)) < 20


def test_a_part_that_was_too_long_is_sent_in_shorter_ones_and_no_such_is_tried_again(
    world: World, large: LocalTree, tmp_path: Path
) -> None:
    world.server.max_body = 1 << 20
    round_trip(world, large, tmp_path / "out")
    refused = [size for size in puts(world) if size > world.server.max_body]
    assert 1 <= len(refused) <= 2  # one for each connection
    world.server.requests.clear()
    (tmp_path / "large").write_bytes(os.urandom(24 * MIB))
    again = LocalTree(scan([("in", tmp_path / "large")]))
    round_trip(world, again, tmp_path / "out")
    assert max(puts(world)) <= world.server.max_body


def test_of_a_part_that_was_cut_only_what_was_not_stored_is_sent_again(
    world: World, large: LocalTree, tmp_path: Path
) -> None:
    def half(request: httpx2.Request) -> None:
        """Store the first half of the chunks of a body, as if the line had broken there."""
        found = FrameReader().feed(request.read())
        for chunk, data in found[len(found) // 2 :]:
            del world.server.port.held[chunk.digest]
            lost.append(len(data))

    def cut_under(request: httpx2.Request, _answer: httpx2.Response) -> httpx2.Response:
        half(request)
        raise httpx2.ReadError("cut")

    lost: list[int] = []
    world.server.max_body = 1 << 30
    passed = [lambda _request, answer: answer] * 4
    world.server.faults = [*passed, cut_under]
    round_trip(world, large, tmp_path / "out")
    assert lost
    pieces = [chunk.size for chunk in large.tree.chunks()] + [c.size for c, _ in large.tree.index()]
    assert sum(puts(world)) <= sum(36 + size for size in [*pieces, *lost])


def test_a_limit_below_one_chunk_is_told(world: World, local: LocalTree) -> None:
    world.server.max_body = LEAST_BYTES // 2
    with pytest.raises(TooLarge):
        send_tree(local.tree, local.read, world.chunks)


def test_lost_answers_and_refused_connections_are_repeated(
    world: World, local: LocalTree, tmp_path: Path
) -> None:
    world.server.faults = [bad_gateway, refuse, bad_gateway, bad_gateway, refuse]
    round_trip(world, local, tmp_path / "out")
    assert world.now > 0


@pytest.mark.parametrize("loudly", [True, False])
@pytest.mark.parametrize("at", [0, 10, 36, CHUNK_BYTES + 40, 2 * CHUNK_BYTES + 100])
def test_a_stream_cut_anywhere_goes_on_with_what_is_owed(
    world: World, local: LocalTree, tmp_path: Path, at: int, loudly: bool
) -> None:
    ref = send_tree(local.tree, local.read, world.chunks)
    index = len(local.tree.index())
    asked_before = len(world.server.requests)
    whole = [lambda _request, answer: answer] * index
    world.server.faults = [*whole, cut(at, loudly=loudly), cut(at // 2, loudly=loudly)]
    fetch_tree(ref, world.chunks, tmp_path / "out")
    asked = [s for m, p, s in world.server.requests[asked_before:] if p.endswith("fetch")]
    assert len(asked) == index + 3
    assert asked[index] >= asked[index + 1] >= asked[index + 2]


def passed(_request: httpx2.Request, answer: httpx2.Response) -> httpx2.Response:
    return answer


def spoil(_request: httpx2.Request, answer: httpx2.Response) -> httpx2.Response:
    data = bytearray(answer.read())
    data[-1] ^= 1
    return httpx2.Response(200, content=bytes(data))


def asked(world: World) -> list[tuple[str, int]]:
    return [
        (query, size // 32)
        for path, query, size in world.server.questions
        if path.endswith("fetch")
    ]


def test_changed_bytes_are_refused_not_written(
    world: World, local: LocalTree, tmp_path: Path
) -> None:
    ref = send_tree(local.tree, local.read, world.chunks)
    world.server.faults = [passed, spoil, spoil]
    with pytest.raises(IntegrityError, match=r"chunk\.digest"):
        fetch_tree(ref, world.chunks, tmp_path / "out")
    assert world.server.faults == []
    spoilt = local.tree.chunks()[-1].digest
    assert spoilt not in {digest_of(p.read_bytes()) for p in tmp_path.rglob("out/*/*")}


def test_for_a_changed_bit_the_broker_is_asked_once_more_and_looks_first(
    world: World, local: LocalTree, tmp_path: Path
) -> None:
    """Kills: giving a job up for a line that flips a bit; asking for all of it again."""
    ref = send_tree(local.tree, local.read, world.chunks)
    world.server.faults = [passed, spoil]
    assert fetch_tree(ref, world.chunks, tmp_path / "out") == local.tree
    assert asked(world)[-2:] == [
        ("epoch=3", len(local.tree.chunks())),
        ("epoch=3&verify=true", 1),
    ]


def test_damage_at_the_broker_has_the_name_that_the_broker_gives_it(
    world: World, local: LocalTree, tmp_path: Path
) -> None:
    def damaged(_request: httpx2.Request, _answer: httpx2.Response) -> httpx2.Response:
        problem = {"type": "x", "status": 422, "code": "chunk.damaged"}
        return httpx2.Response(422, json=problem)

    ref = send_tree(local.tree, local.read, world.chunks)
    world.server.faults = [passed, spoil, damaged]
    with pytest.raises(IntegrityError, match=r"chunk\.damaged"):
        fetch_tree(ref, world.chunks, tmp_path / "out")


def test_a_large_tree_comes_on_several_connections_and_each_chunk_once(
    world: World, large: LocalTree, tmp_path: Path
) -> None:
    world.server.max_body = 1 << 30
    round_trip(world, large, tmp_path / "out")
    answers = [number for _, number in asked(world)]
    assert len(answers) > 3
    assert sum(answers) == len(large.tree.chunks()) + len(large.tree.index())


def test_when_one_connection_breaks_the_others_end_their_part_and_nothing_comes_twice(
    world: World, large: LocalTree, tmp_path: Path
) -> None:
    world.server.max_body = 1 << 30
    ref = send_tree(large.tree, large.read, world.chunks)
    world.server.faults = [passed, cut(2 * MIB, loudly=True)]
    assert fetch_tree(ref, world.chunks, tmp_path / "out") == large.tree
    numbers = [number for _, number in asked(world)]
    extra = sum(numbers) - len(large.tree.chunks()) - len(large.tree.index())
    assert 0 < extra < numbers[1]


def test_an_answer_about_other_chunks_is_no_answer(world: World) -> None:
    world.server.faults = [lambda _request, _answer: httpx2.Response(200, content=b"x" * 32)]
    with pytest.raises(Unreachable, match="strange"):
        world.chunks.missing([Chunk("0" * 64, 1)])


def test_a_line_that_stays_dead_ends_with_patience() -> None:
    world = World(limit_s=30)
    world.server.faults = [refuse] * 1000
    with pytest.raises(Unreachable):
        world.chunks.missing([Chunk("0" * 64, 1)])
    assert world.now <= 30


def test_an_error_of_the_broker_is_not_repeated(world: World) -> None:
    problem = {"type": "x", "status": 409, "code": "job.stale_epoch"}
    world.server.faults = [lambda _request, _answer: httpx2.Response(409, json=problem)] * 2
    with pytest.raises(SekishoError, match=r"job\.stale_epoch"):
        world.chunks.missing([Chunk("0" * 64, 1)])
    assert len(world.server.faults) == 1
