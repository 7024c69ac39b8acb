"""The noted mailbox: passes everything on, and leaves word of how the line is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sekisho.adapters.mailbox_noted import LineNote, NotedMailbox, read_note, write_note
from sekisho.domain.egress import Cleared, clear
from sekisho.domain.errors import SekishoError, Unreachable
from sekisho.site.mailbox import Hold, LastWord, Step
from sekisho.site.workplace import Staged
from sekisho.transfer.tree import Tree
from sekisho.wire.envelope import TreeRef
from sekisho.wire.v1 import PollAnswer

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOLD = Hold("job", 1)
pytestmark = pytest.mark.anyio


class StoppedClock:
    """A clock at noon."""

    seconds = 0.0

    def now(self) -> datetime:
        return NOON

    def monotonic(self) -> float:
        return self.seconds


class MemoryLine:
    """A mailbox that remembers what it was asked, and answers as it is told."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []
        self.coming: Sequence[str] | None = None
        self.fault: SekishoError | None = None

    async def poll(
        self,
        *,
        free: int,
        holds: Sequence[str],
        cancelling: Sequence[str],
        wait_s: float,
        coming: Sequence[str] | None = None,
    ) -> PollAnswer:
        self.asked.append(("poll", free, tuple(holds), tuple(cancelling), wait_s))
        self.coming = coming
        if self.fault is not None:
            raise self.fault
        return PollAnswer(cancel=["job"])

    async def accept(self, hold: Hold) -> None:
        self.asked.append(("accept", hold))

    async def list_inputs(self, hold: Hold, ref: TreeRef) -> Tree:
        self.asked.append(("list_inputs", hold, ref))
        return Tree()

    async def fetch(self, hold: Hold, tree: Tree, directory: str, *, lasting: bool) -> None:
        self.asked.append(("fetch", hold, tree, directory, lasting))

    async def send(self, hold: Hold, staged: Cleared[Staged]) -> None:
        self.asked.append(("send", hold, staged))

    async def publish(self, hold: Hold, snapshot: Cleared[bytes]) -> None:
        self.asked.append(("publish", hold, snapshot))

    async def tell(self, hold: Hold, news: Cleared[tuple[Step, ...]] | Cleared[LastWord]) -> None:
        self.asked.append(("tell", hold, news))


class Noted:
    """A noted mailbox over a line of memory, and the notes that it left."""

    def __init__(self) -> None:
        self.line = MemoryLine()
        self.notes: list[LineNote] = []
        self.clock = StoppedClock()
        self.mailbox = NotedMailbox(self.line, self.clock, 7, self.notes.append)

    async def poll(self) -> PollAnswer:
        return await self.mailbox.poll(free=2, holds=["job"], cancelling=["other"], wait_s=25.0)

    @property
    def waits(self) -> list[object]:
        return [asked[-1] for asked in self.line.asked]


async def test_an_answer_is_passed_on_and_noted() -> None:
    noted = Noted()
    assert await noted.poll() == PollAnswer(cancel=["job"])
    assert noted.line.asked == [("poll", 2, ("job",), ("other",), 0.0)]
    assert noted.notes == [
        LineNote(pid=7, asked_at=NOON),
        LineNote(pid=7, asked_at=NOON, answered_at=NOON),
    ]


async def test_a_fault_is_passed_on_and_noted_until_the_next_answer() -> None:
    noted = Noted()
    noted.line.fault = Unreachable("broker.tls", why="expired")
    with pytest.raises(Unreachable):
        await noted.poll()
    assert noted.notes[-1] == LineNote(pid=7, asked_at=NOON, failed_at=NOON, code="broker.tls")
    noted.line.fault = None
    await noted.poll()
    assert (noted.notes[-1].code, noted.notes[-1].answered_at) == (None, NOON)


async def test_a_busy_line_is_noted_once_a_second_and_a_fault_at_once() -> None:
    """Kills: two files for each poll of a busy agent, and a fault that is told late."""
    noted = Noted()
    for _ in range(9):
        await noted.poll()
    assert len(noted.notes) == 2
    noted.clock.seconds = 1.0
    await noted.poll()
    assert len(noted.notes) == 3
    noted.line.fault = Unreachable()
    with pytest.raises(Unreachable):
        await noted.poll()
    assert noted.notes[-1].code == "broker.unreachable"


async def test_only_the_first_poll_and_that_after_a_fault_do_not_wait() -> None:
    noted = Noted()
    await noted.poll()
    await noted.poll()
    noted.line.fault = Unreachable()
    with pytest.raises(Unreachable):
        await noted.poll()
    noted.line.fault = None
    await noted.poll()
    await noted.poll()
    assert noted.waits == [0.0, 25.0, 25.0, 0.0, 25.0]


async def test_all_other_calls_are_passed_on_unchanged() -> None:
    noted = Noted()
    ref = TreeRef(digest="0" * 64, files=0, size=0, index=[])
    steps: Cleared[tuple[Step, ...]] = clear(("started",))
    staged: Cleared[Staged] = clear(None)  # type: ignore[arg-type]
    await noted.mailbox.accept(HOLD)
    assert await noted.mailbox.list_inputs(HOLD, ref) == Tree()
    await noted.mailbox.fetch(HOLD, Tree(), "/work", lasting=False)
    await noted.mailbox.send(HOLD, staged)
    await noted.mailbox.tell(HOLD, steps)
    assert noted.line.asked == [
        ("accept", HOLD),
        ("list_inputs", HOLD, ref),
        ("fetch", HOLD, Tree(), "/work", False),
        ("send", HOLD, staged),
        ("tell", HOLD, steps),
    ]
    assert noted.notes == []


def test_a_note_is_read_back_and_a_strange_one_is_none(tmp_path: Path) -> None:
    file = tmp_path / "line.json"
    assert read_note(file) is None
    note = LineNote(pid=7, asked_at=NOON, code="broker.tls")
    write_note(file, note)
    assert read_note(file) == note
    assert [path.name for path in tmp_path.iterdir()] == ["line.json"]
    file.write_bytes(b"\xff{")
    assert read_note(file) is None


def test_a_note_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    write_note(tmp_path / "gone" / "line.json", LineNote(pid=7))
    assert list(tmp_path.iterdir()) == []
