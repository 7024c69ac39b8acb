"""What was written and not sent yet: short pieces go out together.

The head and the body of a message are written one after the other. Sent so, each would be a TLS
record of its own and wake the other side; and behind a proxy that does not switch Nagle's algorithm
off (RFC 896), the second waits until the first is acknowledged, which takes 40 ms.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeVar

D = TypeVar("D", bytes, bytes | bytearray | memoryview)
#: What is longer is written by itself: to put it behind something else would copy it.
_LONG_BYTES: Final = 16 << 10


class Gathered:
    """The short pieces at the end of what was written."""

    def __init__(self) -> None:
        self._held = b""

    def __len__(self) -> int:
        return len(self._held)

    def add(self, data: D) -> Iterator[bytes | D]:
        """Hold ``data`` back, or yield what is to be sent now."""
        if len(self._held) + len(data) < _LONG_BYTES:
            self._held += data
            return
        if held := self.taken():
            yield held
        yield data

    def taken(self) -> bytes:
        """Return what was held back, and hold it no more."""
        held, self._held = self._held, b""
        return held
