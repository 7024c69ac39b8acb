"""A line that changes bytes of frames: forgiven once, wherever in them, and never believed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from sekisho.domain.errors import IntegrityError, SekishoError
from sekisho.transfer.fetch import fetch_tree
from sekisho.transfer.send import send_local, send_tree
from sekisho.transfer.source import LocalTree, scan
from sekisho.wire.frames import FRAME_HEAD_BYTES, digest_of, frame
from tests.component.test_client_chunks import World, passed

#: Every byte of a frame's head, and some of what follows.
PLACES = [*range(FRAME_HEAD_BYTES), *range(FRAME_HEAD_BYTES, 200_000, 19_000)]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def local(tmp_path: Path) -> LocalTree:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(os.urandom(140_000))
    return LocalTree(scan([("in", tmp_path)]))


def flipped(at: int) -> Callable[[bytes], bytes]:
    return lambda body: body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


def garbled(change: Callable[[bytes], bytes]) -> Callable[..., httpx2.Response]:
    return lambda _request, answer: httpx2.Response(200, content=change(answer.read()))


def held(world: World, local: LocalTree) -> bool:
    """Say whether exactly what the tree is made of is over there, and right."""
    kept = world.server.port.held
    wanted = {chunk.digest for chunk in local.tree.chunks()}
    wanted |= {chunk.digest for chunk, _ in local.tree.index()}
    return kept.keys() == wanted and all(digest_of(data) == name for name, data in kept.items())


@pytest.mark.parametrize("at", PLACES)
def test_what_was_changed_on_its_way_there_is_sent_once_more(
    world: World, local: LocalTree, at: int
) -> None:
    """Kills: a submission that is given up for a bit that the line flipped."""
    world.server.garble = [flipped(at)]
    send_tree(local.tree, local.read, world.chunks)
    assert world.server.garble == []
    assert held(world, local)


@pytest.mark.parametrize("at", PLACES)
def test_what_was_changed_on_its_way_here_is_asked_for_once_more(
    world: World, local: LocalTree, at: int, tmp_path: Path
) -> None:
    ref = send_tree(local.tree, local.read, world.chunks)
    world.server.faults = [passed, garbled(flipped(at))]
    assert fetch_tree(ref, world.chunks, tmp_path / "out") == local.tree
    assert world.server.faults == []


def test_a_line_that_changes_everything_is_given_up(world: World, local: LocalTree) -> None:
    world.server.garble = [flipped(300)] * 1000
    with pytest.raises(IntegrityError):
        send_tree(local.tree, local.read, world.chunks)
    assert len(world.server.garble) > 990
    assert world.now == 0


def test_a_file_that_changed_is_not_taken_for_the_lines_doing(
    world: World, local: LocalTree, tmp_path: Path
) -> None:
    (tmp_path / "b").write_bytes(os.urandom(140_000))
    with pytest.raises(IntegrityError, match=r"input\.changed"):
        send_local(local, world.chunks)
    puts = [method for method, _, _ in world.server.requests if method == "PUT"]
    assert len(puts) == 1


def first(body: bytes) -> int:
    """Return the length of the first of some frames that are not packed."""
    return FRAME_HEAD_BYTES + int.from_bytes(body[32:FRAME_HEAD_BYTES], "big")


STRANGE = b"not asked for"
FOREIGN = frame(digest_of(STRANGE), STRANGE)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda body: FOREIGN + body, "chunk.unexpected"),
        (lambda body: body[: first(body)] + body, "chunk.unexpected"),
        (lambda body: body[:32] + b"\x7f" + body[33:], "chunk.too_large"),
    ],
    ids=["foreign", "duplicated", "too long"],
)
def test_whoever_sends_what_was_not_asked_for_is_asked_twice_at_most(
    world: World, local: LocalTree, tmp_path: Path, change: Callable[[bytes], bytes], code: str
) -> None:
    """Kills: an endless answer that is read for ever, and one that is asked for again for ever."""
    ref = send_tree(local.tree, local.read, world.chunks)
    world.server.faults = [passed, *[garbled(change)] * 1000]
    asked = len(world.server.requests)
    with pytest.raises(SekishoError) as fault:
        fetch_tree(ref, world.chunks, tmp_path / "out")
    assert fault.value.code == code
    assert len(world.server.requests) - asked <= 3


def test_the_order_of_what_comes_is_of_no_matter(
    world: World, local: LocalTree, tmp_path: Path
) -> None:
    ref = send_tree(local.tree, local.read, world.chunks)
    held = world.server.port.held
    names = [chunk.digest for chunk in reversed(local.tree.chunks())]
    turned = b"".join(frame(name, held[name]) for name in names)
    world.server.faults = [passed, garbled(lambda _: turned)]
    assert fetch_tree(ref, world.chunks, tmp_path / "out") == local.tree
