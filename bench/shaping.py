"""A line of a certain rate and round trip, on loopback: `python -m bench.shaping UPSTREAM MBIT MS`.

Prints its port. Each direction passes so many bits in a second, whatever the number of connections,
and every byte arrives half a round trip after it left. Ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Coroutine
from typing import Any, Final

_PIECE: Final = 64 << 10
#: How much may wait in the line beyond what is on its way: a router's buffer.
_BUFFER: Final = 1 << 20


class Direction:
    """One way of the line, shared by all connections."""

    def __init__(self, mbit: float, delay_s: float) -> None:
        self._bytes_s = mbit * 1e6 / 8
        self._delay_s = delay_s
        self._free_at = 0.0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Bring what comes from ``reader`` to ``writer``, until it ends."""
        loop = asyncio.get_running_loop()
        room = int(self._bytes_s * self._delay_s * 2 + _BUFFER) // _PIECE + 1
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(room)
        arriving = asyncio.create_task(self._deliver(on_the_way, writer))
        try:
            while piece := await reader.read(_PIECE):
                left = max(loop.time(), self._free_at)
                self._free_at = left + len(piece) / self._bytes_s
                await on_the_way.put((self._free_at + self._delay_s, piece))
                await asyncio.sleep(max(0.0, self._free_at - loop.time() - 0.005))
        finally:
            with contextlib.suppress(OSError):
                await on_the_way.put((0.0, b""))
                await arriving

    async def _deliver(
        self, on_the_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            at, piece = await on_the_way.get()
            if not piece:
                break
            await asyncio.sleep(max(0.0, at - loop.time()))
            with contextlib.suppress(OSError):
                writer.write(piece)
                await writer.drain()
        with contextlib.suppress(OSError, NotImplementedError):
            writer.write_eof()


async def _main(upstream: int, mbit: float, round_trip_ms: float) -> None:
    up, down = (Direction(mbit, round_trip_ms / 2000) for _ in range(2))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, onward = await asyncio.open_connection("127.0.0.1", upstream)
        await _both(up.carry(reader, onward), down.carry(there, writer))
        for end in (onward, writer):
            end.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    server.close()


async def _both(*ways: Coroutine[Any, Any, None]) -> None:
    await asyncio.gather(*ways, return_exceptions=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
