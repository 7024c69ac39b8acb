"""A wire that is cut: it carries bytes, counts them, and breaks where it was told to."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.proxy import HOST

_PIECE = 1 << 16


@dataclass
class Cutter:
    """Carries every connection to ``upstream``; each way breaks after so many bytes in all.

    A cut takes down the one connection that carries the byte, at that byte.
    """

    upstream: int
    up_cuts: list[int]
    down_cuts: list[int]
    port: int = 0
    up: int = 0  #: bytes that were carried from the caller
    down: int = 0  #: bytes that were carried to the caller
    cuts: int = 0
    guard: threading.Lock = field(default_factory=threading.Lock)

    def serve(self, caller: socket.socket) -> None:
        """Carry one connection until either end, or a cut, ends it."""
        with (
            caller,
            contextlib.suppress(OSError),
            socket.create_connection((HOST, self.upstream), 30) as far,
        ):
            far.settimeout(None)
            back = threading.Thread(target=self._carry, args=(far, caller, "down"))
            back.start()
            self._carry(caller, far, "up")
            back.join()

    def _carry(self, source: socket.socket, target: socket.socket, way: str) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(_PIECE):
                passed, broken = self._counted(way, len(piece))
                target.sendall(piece[:passed])
                if broken:
                    break
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _counted(self, way: str, size: int) -> tuple[int, bool]:
        """Return how many of ``size`` bytes get through, and whether the wire breaks then."""
        with self.guard:
            before = getattr(self, way)
            cuts = self.up_cuts if way == "up" else self.down_cuts
            broken = bool(cuts) and cuts[0] <= before + size
            if broken:
                size = max(0, cuts.pop(0) - before)
                self.cuts += 1
            setattr(self, way, before + size)
            return size, broken


@contextmanager
def cutter(upstream: int, up_cuts: list[int], down_cuts: list[int]) -> Iterator[Cutter]:
    """Run a cutter in front of a port of this machine."""
    serving: list[threading.Thread] = []
    with socket.create_server((HOST, 0), backlog=64) as listener:
        made = Cutter(upstream, sorted(up_cuts), sorted(down_cuts), listener.getsockname()[1])

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    caller, _ = listener.accept()
                    serving.append(threading.Thread(target=made.serve, args=(caller,)))
                    serving[-1].start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield made
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join(30)
            for connection in serving:
                connection.join(30)
