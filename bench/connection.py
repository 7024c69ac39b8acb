"""One keep-alive HTTP/1.1 connection, as bare as it can be: thousands of them must cost little."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import Self

_LIMIT = 1 << 16


@dataclass(frozen=True, slots=True)
class Connection:
    """Sends one request after another; any fault of the line is an exception."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def open(cls, port: int, trust: ssl.SSLContext | None) -> Self:
        """Connect to ``port`` of this machine, through TLS when there is somebody to trust."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=trust, limit=_LIMIT, ssl_handshake_timeout=120 if trust else None
        )
        return cls(reader, writer)

    async def ask(
        self, method: str, path: str, body: bytes = b"", token: str = ""
    ) -> tuple[int, bytes]:
        """Return the status and the body of the answer."""
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
        if token:
            head += f"Authorization: Bearer {token}\r\n"
        self.writer.write(head.encode("ascii") + b"Content-Type: application/json\r\n\r\n" + body)
        await self.writer.drain()
        answer = await self.reader.readuntil(b"\r\n\r\n")
        return int(answer[9:12]), await self.reader.readexactly(_length(answer))

    def close(self) -> None:
        self.writer.close()


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0
