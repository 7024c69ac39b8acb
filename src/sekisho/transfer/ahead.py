"""Inputs on their way while others are still read: a hint, which `transfer.send` completes.

Chunks are sent from a thread of their own as soon as they are known, in the order in which they
are, and as they were read: again only when the line is so much slower than the disk that they
would take too much memory. Nothing hangs on it: what did not get through is asked for, and sent,
when all are known.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import SimpleQueue
from typing import Final, NamedTuple

from sekisho.domain.errors import SekishoError
from sekisho.domain.limits import MIB
from sekisho.transfer.pipeline import mapped
from sekisho.transfer.port import ChunkPort
from sekisho.wire.frames import Chunk

#: Gives the content of a chunk.
Content = Callable[[Chunk], bytes]
#: Of less the reading is over before the first request has come back.
WORTH_BYTES: Final = 16 * MIB
#: So much is asked for at once, and so many chunks; others are found and sent meanwhile.
_BATCH_BYTES: Final = 8 * MIB
_BATCH: Final = 256
#: So much is kept as it was read: what waits for the first request at least.
HELD_BYTES: Final = WORTH_BYTES


class _Known(NamedTuple):
    """A chunk, what gives its content, and, while there is room for that, the content."""

    chunk: Chunk
    content: Content
    held: bytes | None

    def data(self) -> bytes:
        return self.content(self.chunk) if self.held is None else self.held


class Ahead:
    """Sends what it is told of to the port that ``begin`` opens, once there is enough of it.

    ``begin`` returns None, or raises, where nothing can be sent ahead.
    """

    def __init__(self, begin: Callable[[], ChunkPort | None]) -> None:
        self._begin = begin
        self._waiting: deque[_Known] = deque()
        self._gone: SimpleQueue[Chunk | None] = SimpleQueue()
        self._news = threading.Condition()
        self._chunks: set[Chunk] = set()
        self._size = self._size_waiting = self._size_held = 0
        self._begun = self._whole = self._left = False
        self._failed: BaseException | None = None

    @property
    def chunks(self) -> frozenset[Chunk]:
        """What is on its way, or will be, unless it fails."""
        return frozenset(self._chunks) if self._begun else frozenset()

    def found(self, chunk: Chunk, data: bytes | memoryview, content: Content) -> None:
        """Know of a chunk that was read, and can be again. Only one thread may say so."""
        if not chunk.digest or chunk in self._chunks:
            return
        self._chunks.add(chunk)
        self._size += chunk.size
        with self._news:
            held = bytes(data) if self._size_held + chunk.size <= HELD_BYTES else None
            self._size_held += 0 if held is None else chunk.size
            self._waiting.append(_Known(chunk, content, held))
            self._size_waiting += chunk.size
            self._news.notify()
        if not self._begun and self._size >= WORTH_BYTES:
            self._begun = True
            threading.Thread(target=self._run, daemon=True).start()

    def gone(self) -> Iterator[Chunk]:
        """Give each chunk when it has gone, or was there; to the last one. Raise what went wrong.

        It is no error when there is no way ahead: then what is left is simply not given.
        """
        self._close()
        while self._begun and (chunk := self._gone.get()) is not None:
            yield chunk
        if self._failed is not None:
            raise self._failed

    def leave(self) -> None:
        """Begin with nothing more; what is on its way ends by itself."""
        self._left = True
        self._close()

    def _close(self) -> None:
        with self._news:
            self._whole = True
            self._news.notify()

    def _run(self) -> None:
        port = None
        try:
            with suppress(SekishoError):  # whoever submits the job is told the same
                port = self._begin()
            if port is not None:
                port.send(self._handed(port))
        except BaseException as error:  # noqa: BLE001 (raised to whoever waits for the end)
            self._failed = error
        finally:
            self._gone.put(None)

    def _handed(self, port: ChunkPort) -> Iterator[tuple[Chunk, bytes]]:
        for known, data in mapped(lambda known: (known, known.data()), self._missing(port)):
            yield known.chunk, data
            self._let_go(known)  # asked for the next one: this one is on its way

    def _missing(self, port: ChunkPort) -> Iterator[_Known]:
        while (batch := self._batch()) and not self._left:
            wanted = set(port.missing([known.chunk for known in batch]))
            for known in batch:
                if self._left:
                    return
                if known.chunk in wanted:
                    yield known
                else:
                    self._let_go(known)

    def _let_go(self, known: _Known) -> None:
        with self._news:
            self._size_held -= 0 if known.held is None else known.chunk.size
        self._gone.put(known.chunk)

    def _batch(self) -> list[_Known]:
        """Return what is known and not yet asked for, once it is enough; nothing at the end."""
        with self._news:
            self._news.wait_for(lambda: self._size_waiting >= _BATCH_BYTES or self._whole)
            batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            self._size_waiting -= sum(known.chunk.size for known in batch)
            return batch
