"""Wakeups within one process: an event for each listener, in sets by topic."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import anyio


class MemoryListener:
    """One event. It may be rung from any thread, and is waited for in the loop that made it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._rung = asyncio.Event()

    def ring(self) -> None:
        with suppress(RuntimeError):  # the loop has ended, so nobody waits
            self._loop.call_soon_threadsafe(self._rung.set)

    async def wait(self, timeout_s: float) -> bool:
        with anyio.move_on_after(timeout_s):
            await self._rung.wait()
        heard = self._rung.is_set()
        self._rung.clear()  # what is notified from here on is for the next wait
        return heard


class MemoryWakeups:
    """Wakes the listeners of this process. A notice costs what its own topic's listeners cost."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: dict[str, set[MemoryListener]] = {}

    def notify(self, topic: str) -> None:
        with self._lock:
            listeners = tuple(self._listeners.get(topic, ()))
        for listener in listeners:
            listener.ring()

    @contextmanager
    def listen(self, topics: Sequence[str]) -> Iterator[MemoryListener]:
        listener = MemoryListener()
        with self._lock:
            for topic in topics:
                self._listeners.setdefault(topic, set()).add(listener)
        try:
            yield listener
        finally:
            self._forget(listener, topics)

    def _forget(self, listener: MemoryListener, topics: Sequence[str]) -> None:
        with self._lock:
            for topic in set(topics):
                listeners = self._listeners[topic]
                listeners.discard(listener)
                if not listeners:
                    del self._listeners[topic]
