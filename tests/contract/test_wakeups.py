"""What every Wakeups does. A lost wake-up shows as a wait that lasts its whole time."""

from __future__ import annotations

import asyncio
import random
import threading
import time

import anyio
import pytest

from sekisho.adapters.wakeups_memory import MemoryWakeups
from sekisho.broker.ports import Wakeups

pytestmark = pytest.mark.anyio
LONG = 60.0


@pytest.fixture
def wakeups() -> Wakeups:
    return MemoryWakeups()


async def test_a_notice_between_listening_and_waiting_is_heard(wakeups: Wakeups) -> None:
    with wakeups.listen(["one"]) as notices:
        wakeups.notify("one")
        assert await notices.wait(LONG)


async def test_a_notice_that_came_while_looking_took_its_time_is_heard(wakeups: Wakeups) -> None:
    """Kills: forgetting earlier notices at the beginning of a wait."""
    with wakeups.listen(["one"]) as notices:
        wakeups.notify("one")
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        with anyio.fail_after(5):
            assert await notices.wait(LONG)


async def test_any_of_the_topics_wakes(wakeups: Wakeups) -> None:
    with wakeups.listen(["one", "two", "one"]) as notices:
        wakeups.notify("two")
        assert await notices.wait(LONG)
        wakeups.notify("one")
        assert await notices.wait(LONG)


async def test_without_a_notice_the_time_runs_out(wakeups: Wakeups) -> None:
    with wakeups.listen(["one"]) as notices:
        wakeups.notify("two")
        assert not await notices.wait(0.01)


async def test_a_notice_is_heard_once(wakeups: Wakeups) -> None:
    with wakeups.listen(["one"]) as notices:
        wakeups.notify("one")
        assert await notices.wait(LONG)
        assert not await notices.wait(0.01)


async def test_what_was_notified_before_listening_is_not_heard(wakeups: Wakeups) -> None:
    wakeups.notify("one")
    with wakeups.listen(["one"]) as notices:
        assert not await notices.wait(0.01)


async def test_all_listeners_of_a_topic_wake(wakeups: Wakeups) -> None:
    heard: list[bool] = []

    async def listen(started: anyio.Event) -> None:
        with wakeups.listen(["one"]) as notices:
            started.set()
            heard.append(await notices.wait(LONG))

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            started = anyio.Event()
            tasks.start_soon(listen, started)
            await started.wait()
        wakeups.notify("one")
    assert heard == [True] * 10


async def test_a_listener_that_was_cancelled_leaves_the_others_alone(wakeups: Wakeups) -> None:
    with wakeups.listen(["one"]) as stays:
        with anyio.move_on_after(0.01), wakeups.listen(["one"]) as leaves:
            await leaves.wait(LONG)
        wakeups.notify("one")
        assert await stays.wait(LONG)


async def test_no_notice_of_another_thread_is_lost(wakeups: Wakeups) -> None:
    """Kills: clearing the event after looking, registering after looking, setting off the loop."""
    rounds, done = 3000, threading.Event()
    told, seen = 0, 0

    def tell() -> None:
        nonlocal told
        dice = random.Random(1)
        for _ in range(rounds):
            told += 1
            wakeups.notify("one")
            while seen < told - dice.randrange(3) and not done.is_set():
                time.sleep(0)  # let the other thread run

    teller = threading.Thread(target=tell)
    with wakeups.listen(["one"]) as notices:
        teller.start()
        with anyio.move_on_after(30):
            while seen < rounds:
                before, seen = seen, told
                if seen == before:
                    await notices.wait(LONG)
    done.set()
    teller.join(30)
    assert seen == rounds


async def test_a_notice_for_a_loop_that_ended_is_no_error(wakeups: Wakeups) -> None:
    def listen_and_end() -> None:
        async def listen() -> None:
            wakeups.listen(["one"]).__enter__()

        asyncio.run(listen())

    await anyio.to_thread.run_sync(listen_and_end)
    wakeups.notify("one")


async def test_thousands_wait_and_only_those_of_the_topic_wake(wakeups: Wakeups) -> None:
    woken: list[int] = []

    async def agent(number: int) -> None:
        with wakeups.listen([f"site-{number}"]) as notices:
            waiting.add(number)
            await notices.wait(LONG)
            woken.append(number)

    waiting: set[int] = set()
    async with anyio.create_task_group() as tasks:
        for number in range(5000):
            tasks.start_soon(agent, number)
        while len(waiting) < 5000:
            await anyio.lowlevel.checkpoint()
        wakeups.notify("site-7")
        while not woken:
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert woken == [7]
