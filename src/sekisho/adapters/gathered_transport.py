"""A connection of an event loop whose short writes of one step go out together (`gathered`)."""

from __future__ import annotations

import asyncio
from typing import Any

from sekisho.adapters.gathered import Gathered


class GatheredTransport(asyncio.Transport):
    """Passes on to ``below`` what a server's protocol asks of a transport."""

    __slots__ = ("_below", "_loop", "_written")

    def __init__(self, below: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._below = below
        self._loop = loop
        self._written = Gathered()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send ``data`` now when it is long; else when all that can run now has run."""
        waits = len(self._written)
        for piece in self._written.add(data):
            self._below.write(piece)
        if self._written and not waits:
            self._loop.call_soon(self._send)

    def close(self) -> None:
        self._send()
        self._below.close()

    def abort(self) -> None:
        self._written.taken()
        self._below.abort()

    def is_closing(self) -> bool:
        return self._below.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._below.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        return self._below.get_write_buffer_size() + len(self._written)

    def pause_reading(self) -> None:
        self._below.pause_reading()

    def resume_reading(self) -> None:
        self._below.resume_reading()

    def _send(self) -> None:
        if (held := self._written.taken()) and not self._below.is_closing():
            self._below.write(held)
