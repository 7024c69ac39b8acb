"""Looks at a batch system that are shared, and grow rarer: by a clock that leaps."""

from __future__ import annotations

from collections.abc import Collection

import anyio
import pytest

from sekisho.adapters.schedulers.board import Board
from sekisho.domain.errors import Unavailable
from sekisho.site.scheduler import Gone, Running, Ticket
from tests.virtual_time import VirtualClock, simulate

HOUR = 3600.0


def a_ticket(n: int) -> Ticket:
    return Ticket(token=f"token-{n:08}", work_dir="/w", control_dir="/c", reference=str(n))


class Queue:
    """What is looked at: the tickets asked about, and a state that a test changes."""

    def __init__(self) -> None:
        self.looks: list[float] = []
        self.state = "waits"
        self.away = False

    async def look(self, tickets: Collection[Ticket]) -> tuple[str, frozenset[Ticket]]:
        self.looks.append(anyio.current_time())
        await anyio.sleep(0.5)
        if self.away:
            raise Unavailable("scheduler.away")
        return self.state, frozenset(tickets)

    def board(self) -> Board[tuple[str, frozenset[Ticket]]]:
        return Board(self.look, poll_s=2.0, poll_max_s=30.0)


def test_a_hundred_who_come_at_once_share_two_looks_at_most() -> None:
    queue = Queue()

    async def story() -> None:
        board = queue.board()
        async with anyio.create_task_group() as group:
            for n in range(100):
                group.start_soon(board.sight, [a_ticket(n)])

    simulate(VirtualClock(), story)
    assert 1 <= len(queue.looks) <= 2


def test_who_comes_during_a_look_gets_the_next_one_with_itself_in_it() -> None:
    queue = Queue()

    async def story() -> None:
        board = queue.board()
        async with anyio.create_task_group() as group:
            group.start_soon(board.sight, [a_ticket(1)])
            await anyio.sleep(0.1)
            _, asked = await board.sight([a_ticket(2)])
            assert asked == {a_ticket(1), a_ticket(2)}

    simulate(VirtualClock(), story)
    assert len(queue.looks) == 2
    assert queue.looks[1] - queue.looks[0] >= 2.0


def test_while_nothing_changes_looks_grow_rarer_and_a_change_brings_them_back() -> None:
    queue = Queue()

    async def story() -> None:
        board = queue.board()
        ticket = a_ticket(1)
        end = anyio.current_time() + HOUR
        while anyio.current_time() < end:
            await board.sight([ticket])
            await board.next_sight(30.0)
        assert len(queue.looks) < HOUR / 25
        queue.state = "runs"
        await board.next_sight(60.0)
        quick = len(queue.looks)
        await board.next_sight(60.0)
        assert queue.looks[quick] - queue.looks[quick - 1] <= 2.5

    simulate(VirtualClock(), story)
    waits = [b - a for a, b in zip(queue.looks, queue.looks[1:], strict=False)]
    assert min(waits) >= 2.0
    assert max(waits) <= 31.0


def test_a_fault_is_shared_too_and_does_not_last() -> None:
    queue = Queue()
    queue.away = True

    async def story() -> None:
        board = queue.board()

        async def asks(n: int) -> None:
            with pytest.raises(Unavailable):
                await board.sight([a_ticket(n)])

        async with anyio.create_task_group() as group:
            for n in range(50):
                group.start_soon(asks, n)
        assert len(queue.looks) <= 2
        queue.away = False
        await anyio.sleep(10)
        state, _ = await board.sight([a_ticket(1)])
        assert state == "waits"

    simulate(VirtualClock(), story)


def test_what_is_over_is_not_asked_about_any_more() -> None:
    queue = Queue()

    async def story() -> None:
        board = queue.board()
        await board.sight([a_ticket(1), a_ticket(2)])
        assert board.settled({a_ticket(1): Gone(), a_ticket(2): Running()}) == [a_ticket(1)]
        later = await board.next_sight(60.0)
        assert later is not None
        assert later[1] == {a_ticket(2)}

    simulate(VirtualClock(), story)
