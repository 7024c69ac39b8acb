"""A result that is fetched over an older one: only what differs is asked for, and all is right."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from sekisho.adapters.chunks_memory import MemoryChunks
from sekisho.adapters.lane_memory import Files, MemoryLane
from sekisho.adapters.remembered_directory import RememberedDirectory
from sekisho.client.client import Client
from sekisho.client.spec import JobSpec
from sekisho.domain.limits import MIB
from sekisho.transfer.remembered import Look
from sekisho.wire.envelope import Outcome, Request
from sekisho.wire.frames import Chunk, Sound

NAME = "out/field.bin"
BEFORE = os.urandom(8 * MIB)
AFTER = BEFORE[: 4 * MIB] + b"another" + BEFORE[4 * MIB + 7 :]


class Asked(MemoryLane):
    """A lane whose site gives ``content``; tells how many bytes were asked of it."""

    def __init__(self, content: bytes) -> None:
        super().__init__(self.give)
        self.content = content
        self.brought = 0

    def give(self, _request: Request, _files: Files) -> tuple[Outcome, Files]:
        return Outcome(verdict="succeeded", exit_code=0), {NAME: self.content, "note": b"small"}

    def chunks(self, job_id: str) -> Any:
        return Counted(super().chunks(job_id), self)


class Counted:
    def __init__(self, kept: MemoryChunks, lane: Asked) -> None:
        self._kept = kept
        self._lane = lane

    def fetch(self, chunks: Sequence[Chunk]) -> Iterator[Sound]:
        self._lane.brought += sum(chunk.size for chunk in chunks)
        return self._kept.fetch(chunks)


@pytest.fixture
def memory(tmp_path: Path) -> RememberedDirectory:
    return RememberedDirectory(tmp_path / "cache")


def fetched(content: bytes, into: Path, memory: RememberedDirectory | None) -> int:
    """Run a job that gives ``content``; return how many bytes came over the line."""
    lane = Asked(content)
    Client(lane, None, memory).submit(JobSpec(site="one", command="solve")).result(into)
    assert (into / NAME).read_bytes() == content
    assert (into / "note").read_bytes() == b"small"
    return lane.brought


def test_of_a_changed_result_only_what_differs_comes(
    memory: RememberedDirectory, tmp_path: Path
) -> None:
    """Kills: a result that comes whole again, whatever lies there."""
    first = fetched(BEFORE, tmp_path / "r", memory)
    assert first > len(BEFORE)
    assert fetched(AFTER, tmp_path / "r", memory) < first / 3
    assert fetched(AFTER, tmp_path / "r", memory) < 64 << 10  # the list, and what is small
    assert fetched(BEFORE, tmp_path / "r", None) > len(BEFORE)  # the control: no memory


def test_in_another_directory_everything_comes(memory: RememberedDirectory, tmp_path: Path) -> None:
    first = fetched(BEFORE, tmp_path / "r", memory)
    assert fetched(BEFORE, tmp_path / "other", memory) == first


def test_a_file_that_somebody_else_put_there_is_not_read(
    memory: RememberedDirectory, tmp_path: Path
) -> None:
    """Nobody finds out by what we ask for whether a part of a file of ours is what they think."""
    (tmp_path / "r" / "out").mkdir(parents=True)
    (tmp_path / "r" / NAME).write_bytes(BEFORE)
    assert fetched(AFTER, tmp_path / "r", memory) > len(AFTER)


@pytest.mark.parametrize("how", ["overwritten", "shortened", "removed", "a folder"])
def test_what_was_done_to_the_older_result_costs_time_only(
    memory: RememberedDirectory, tmp_path: Path, how: str
) -> None:
    fetched(BEFORE, tmp_path / "r", memory)
    old = tmp_path / "r" / NAME
    if how == "overwritten":
        with old.open("r+b") as file:
            file.write(b"spoiled")
    elif how == "shortened":
        os.truncate(old, 100)
    else:
        old.unlink()
    if how == "a folder":
        (old.parent / "other").mkdir()
    assert fetched(AFTER, tmp_path / "r", memory) > len(AFTER)


def test_what_changes_while_it_is_read_comes_from_the_other_side(
    memory: RememberedDirectory, tmp_path: Path
) -> None:
    """As if the older file had been written to after it was looked at: its looks are believed."""

    class Blind(RememberedDirectory):
        def recall(self, look: Any) -> Any:
            del look
            return memory.recall(seen)

    fetched(BEFORE, tmp_path / "r", memory)
    old = tmp_path / "r" / NAME
    seen = Look.of(old.lstat())
    with old.open("r+b") as file:
        file.write(b"spoiled")
        file.seek(6 * MIB)
        file.write(b"spoiled")
    came = fetched(BEFORE, tmp_path / "r", Blind(tmp_path / "cache"))
    assert 0 < came < len(BEFORE) / 2
