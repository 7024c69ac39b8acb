"""Chunks behind a gate, and chunks at the site itself: there once, verified, however often asked.

The gate runs in a thread behind a pair of pipes; the other tests put something hostile there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import msgspec
import pytest

from sekisho.adapters.chunks_local import LocalChunks, LocalFiles
from sekisho.adapters.gate_stdio import GateStdio
from sekisho.adapters.lane_gate import GateLane
from sekisho.adapters.patience import Patience
from sekisho.adapters.shelf_directory import DirectoryShelf
from sekisho.adapters.shelf_memory import MemoryShelf
from sekisho.domain.errors import Conflict, IntegrityError, NotFound, SekishoError, StorageFull
from sekisho.domain.files import RelPath
from sekisho.domain.limits import MAX_CHUNK_BYTES
from sekisho.transfer.fetch import fetch_files
from sekisho.transfer.port import ChunkPort
from sekisho.transfer.tree import Tree, TreeFile
from sekisho.wire.frames import Chunk, Frame, digest_of, frame, pack_digests
from sekisho.wire.stdio import DATA, END, MESSAGE, Answer, Packets, encoded
from tests.component.gate_world import World, a_submission
from tests.world import a_chunk

Serve = Callable[[IO[bytes], IO[bytes]], None]


@dataclass
class Piped:
    """A session whose other side is a function in a thread."""

    stdin: IO[bytes]
    stdout: IO[bytes]
    thread: threading.Thread

    def fault(self) -> SekishoError | None:
        return None

    def close(self) -> None:
        for stream in (self.stdin, self.stdout):
            with suppress(BrokenPipeError):
                stream.close()
        self.thread.join()


def piped(serve: Serve) -> Piped:
    asked, told = os.pipe(), os.pipe()

    def work() -> None:
        with (
            os.fdopen(asked[0], "rb") as incoming,
            os.fdopen(told[1], "wb", 0) as outgoing,
            suppress(SekishoError, BrokenPipeError),
        ):
            serve(incoming, outgoing)

    thread = threading.Thread(target=work)
    thread.start()
    return Piped(os.fdopen(asked[1], "wb"), os.fdopen(told[0], "rb"), thread)


def a_lane(serve: Serve) -> GateLane:
    return GateLane("kobe", lambda: piped(serve), Patience(limit_s=0))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def lane(world: World) -> Iterator[GateLane]:
    def serve(incoming: IO[bytes], outgoing: IO[bytes]) -> None:
        GateStdio(world.gate(), Packets(incoming, outgoing)).serve()

    made = a_lane(serve)
    yield made
    made.close()


@pytest.fixture(params=["gate", "local"])
def port(request: pytest.FixtureRequest, world: World, lane: GateLane) -> ChunkPort:
    job = world.gate().submit(a_submission(has_inputs=True)).id
    return lane.chunks(job) if request.param == "gate" else LocalChunks(world.chunks, "alice")


def test_what_was_sent_is_not_missing(port: ChunkPort) -> None:
    pieces = [a_chunk(f"number {n}") for n in range(20)]
    chunks = [chunk for chunk, _ in pieces]
    assert port.missing(chunks) == chunks
    port.send(pieces[:12])
    assert port.missing(chunks) == chunks[12:]
    port.send(pieces)
    assert port.missing(chunks) == []


def test_nothing_is_missing_of_nothing(port: ChunkPort) -> None:
    assert port.missing([]) == []
    port.send([])


def test_a_chunk_is_sent_whatever_it_holds_and_however_large(port: ChunkPort) -> None:
    contents = [b"", b"x", bytes(960 << 10), os.urandom(960 << 10)]
    pieces = [(Chunk(digest_of(data), len(data)), data) for data in contents]
    port.send(pieces)
    assert port.missing([chunk for chunk, _ in pieces]) == []


def test_many_parts_arrive_while_others_are_read(port: ChunkPort) -> None:
    data = [os.urandom(900 << 10) for _ in range(40)]
    pieces = [(Chunk(digest_of(one), len(one)), one) for one in data]
    port.send(iter(pieces))
    assert port.missing([chunk for chunk, _ in pieces]) == []


def test_what_is_wrong_is_not_kept_and_what_came_before_is(port: ChunkPort) -> None:
    good, wrong = a_chunk("good"), (a_chunk("wrong")[0], b"other bytes")
    port.send([good])
    with pytest.raises(SekishoError):
        port.send([wrong])
    assert port.missing([good[0], wrong[0]]) == [wrong[0]]


def test_what_is_not_there_is_not_found(port: ChunkPort) -> None:
    with pytest.raises(NotFound):
        list(port.fetch([a_chunk("never")[0]]))


def test_a_source_that_fails_ends_the_sending(port: ChunkPort) -> None:
    def pieces() -> Iterator[tuple[Chunk, bytes]]:
        yield a_chunk("first")
        raise Conflict("fetch.busy")

    with pytest.raises(Conflict):
        port.send(pieces())
    port.send([a_chunk("second")])


def test_local_chunks_come_back_verified(world: World) -> None:
    port = LocalChunks(world.chunks, "alice")
    pieces = [a_chunk(f"number {n}") for n in range(5)]
    port.send(pieces)
    assert list(port.fetch([chunk for chunk, _ in pieces])) == pieces


# ---------------------------------------------------------- files out of what is at hand


def a_tree(contents: dict[str, list[bytes]]) -> Tree:
    files = []
    for name, pieces in sorted(contents.items()):
        chunks = tuple(Chunk(digest_of(p) if any(p) else "", len(p)) for p in pieces)
        size = sum(map(len, pieces))
        files.append(TreeFile(RelPath.parse(name), executable=False, size=size, chunks=chunks))
    return Tree(tuple(files))


def shelved(world: World, contents: dict[str, list[bytes]]) -> tuple[Tree, LocalFiles]:
    tree = a_tree(contents)
    pieces = {digest_of(piece): piece for file in contents.values() for piece in file}
    world.chunks.put("alice", [Frame(digest, data) for digest, data in pieces.items()])
    return tree, LocalFiles(world.chunks, "alice", tree)


def test_files_are_put_together_from_what_is_here(world: World, tmp_path: Path) -> None:
    pieces = [os.urandom(3000) for _ in range(200)]
    contents = {
        "large": pieces[:150],
        "folder/again": [pieces[3], pieces[3], pieces[150]],
        "empty": [],
        "sparse": [pieces[0], bytes(MAX_CHUNK_BYTES), pieces[1]],
    }
    tree, files = shelved(world, contents)
    fetch_files(tree, files, tmp_path / "work")
    for name, expected in contents.items():
        assert (tmp_path / "work" / name).read_bytes() == b"".join(expected)
    assert (tmp_path / "work" / "sparse").stat().st_blocks * 512 < MAX_CHUNK_BYTES


def test_what_was_damaged_on_the_shelf_is_not_taken(world: World, tmp_path: Path) -> None:
    """Killed by: believing what was copied without looking at it."""
    shelf = world.chunks = DirectoryShelf(tmp_path / "packs")
    pieces = [os.urandom(3000) for _ in range(5)]
    tree, files = shelved(world, {"file": pieces})
    (pack,) = (tmp_path / "packs").rglob("*.pack")
    data = bytearray(pack.read_bytes())
    data[7000] ^= 1
    pack.write_bytes(data)
    os.utime(pack, (2e9, 2e9))
    with pytest.raises(IntegrityError):
        fetch_files(tree, files, tmp_path / "work")
    assert not (tmp_path / "work" / "file").exists()
    assert shelf.find("alice", [digest_of(pieces[2])]) == {}


def test_a_chunk_that_is_not_here_is_not_found(world: World, tmp_path: Path) -> None:
    tree, _ = shelved(world, {"file": [b"one", b"two", b"three"]})
    files = LocalFiles(MemoryShelf(), "alice", tree)
    with pytest.raises(NotFound):
        fetch_files(tree, files, tmp_path / "work")
    world.chunks.drop("alice", datetime.max.replace(tzinfo=UTC))
    world.chunks.put("alice", [Frame(digest_of(b"one"), b"one")])
    with pytest.raises(NotFound):
        fetch_files(tree, LocalFiles(world.chunks, "alice", tree), tmp_path / "work")


def test_what_has_no_room_is_refused_before_it_is_written(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, files = shelved(world, {"file": [b"one", b"two"]})
    system = os.statvfs(tmp_path)
    full = os.statvfs_result((*system[:4], 1, *system[5:]))
    monkeypatch.setattr(os, "fstatvfs", lambda _fd: full)
    with pytest.raises(StorageFull):
        fetch_files(tree, files, tmp_path / "work")


# --------------------------------------------------------------- a gate that is no gate


def hears(answer: Callable[[Packets], None]) -> Serve:
    """Hear one call with its data, then say what ``answer`` says."""

    def serve(incoming: IO[bytes], outgoing: IO[bytes]) -> None:
        packets = Packets(incoming, outgoing)
        packets.receive()
        for _ in packets.data():
            pass
        answer(packets)

    return serve


def said(*packets: tuple[bytes, bytes]) -> Callable[[Packets], None]:
    def say(out: Packets) -> None:
        for kind, payload in packets:
            out.send(kind, payload)

    return say


DONE = (MESSAGE, encoded(Answer(body=msgspec.Raw(b"{}"))))
ASKED, CONTENT = a_chunk("asked")
OTHER, _ = a_chunk("other")


@pytest.mark.parametrize(
    "answer",
    [
        [],
        [(MESSAGE, b"{")],
        [(MESSAGE, b"null")],
        [(DATA, b"x"), (END, b"")],
        [DONE],
        [DONE, (DATA, b"x")],
        [DONE, (END, b"")],
        [DONE, (MESSAGE, b"{}")],
        [DONE, (DATA, frame(ASKED.digest, b"changed")), (END, b"")],
        [DONE, (DATA, frame(ASKED.digest, CONTENT)[:-1]), (END, b"")],
        [DONE, (DATA, frame(OTHER.digest, b"other")), (END, b"")],
        [DONE, *[(DATA, bytes(1 << 20))] * 3, (END, b"")],
    ],
    ids=range(12),
)
def test_an_answer_that_is_none_is_not_believed(answer: list[tuple[bytes, bytes]]) -> None:
    lane = a_lane(hears(said(*answer)))
    with pytest.raises(SekishoError):
        list(lane.chunks(a_submission().id).fetch([ASKED]))
    lane.close()


def test_an_endless_answer_is_left_after_what_was_asked_for() -> None:
    sent: list[int] = []

    def endless(packets: Packets) -> None:
        packets.send(*DONE)
        while True:
            packets.send(DATA, bytes(1 << 20))
            packets.flush()
            sent.append(1)

    lane = a_lane(hears(endless))
    with pytest.raises(SekishoError):
        list(lane.chunks(a_submission().id).fetch([ASKED]))
    lane.close()
    assert len(sent) < 10


def test_chunks_that_were_not_asked_about_cannot_be_missing() -> None:
    lane = a_lane(hears(said(DONE, (DATA, pack_digests([OTHER.digest])), (END, b""))))
    with pytest.raises(SekishoError):
        lane.chunks(a_submission().id).missing([ASKED])
    lane.close()


def test_a_call_is_repeated_in_a_new_session_when_the_line_broke(world: World) -> None:
    job = world.gate().submit(a_submission(has_inputs=True)).id
    opened: list[int] = []

    def serve(incoming: IO[bytes], outgoing: IO[bytes]) -> None:
        opened.append(1)
        if len(opened) < 4:
            incoming.read(30)
            return
        GateStdio(world.gate(), Packets(incoming, outgoing)).serve()

    lane = GateLane("kobe", lambda: piped(serve), Patience(wait=lambda _: False))
    assert lane.start(job).state == "queued"
    assert len(opened) == 4
    lane.close()
