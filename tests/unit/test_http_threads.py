"""Where a blocking call of the broker is done: on the loop, or beside it."""

from __future__ import annotations

import threading

import anyio
import pytest

from sekisho.http.threads import Threads

pytestmark = pytest.mark.anyio


class Odd(Exception):
    """A fault of the work."""


def where(word: str, *, loud: bool = False) -> tuple[str, int]:
    """Return ``word`` and the thread that said it."""
    if loud:
        raise Odd(word)
    return word, threading.get_ident()


@pytest.mark.parametrize("at_hand", [True, False])
async def test_a_look_is_taken_on_the_loop_only_where_the_store_is_at_hand(at_hand: bool) -> None:
    """Kills: a look at a database over the network that stops the loop; a thread for each row."""
    threads = Threads(at_hand=at_hand)
    word, thread = await threads.look(where, "seen")
    assert word == "seen"
    assert (thread == threading.get_ident()) is at_hand
    with pytest.raises(Odd, match="seen"):
        await threads.look(where, "seen", loud=True)


async def test_what_writes_is_never_done_on_the_loop() -> None:
    _, thread = await Threads(at_hand=True).run(where, "written")
    assert thread != threading.get_ident()


async def test_no_more_than_so_many_calls_run_at_once_and_a_look_is_none_of_them() -> None:
    threads, gate, begun = Threads(2, at_hand=True), threading.Event(), threading.Semaphore(0)

    def work() -> None:
        begun.release()
        assert gate.wait(60)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(threads.run, work)
        for _ in range(2):
            assert await anyio.to_thread.run_sync(lambda: begun.acquire(timeout=60))
        assert (await threads.look(where, "seen"))[0] == "seen"
        assert not begun.acquire(blocking=False)
        gate.set()
