"""A line between a client and a server of this machine: it counts, and can be cut at any moment."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Wire:
    """Forwards connections of its own port to another one. ``out`` counts bytes to the server."""

    def __init__(self, port: int) -> None:
        self.out = 0
        self.back = 0
        self.accepted: list[float] = []  #: monotonic times
        self._port = port
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._door.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def cut(self) -> int:
        """Break every connection of this moment; return how many there were."""
        with self._guard:
            there = list(self._open)
            self._open.clear()
        for end in there:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        return len(there)

    def close(self) -> None:
        with suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        self.cut()
        self._thread.join(5)

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._door.accept()
            except OSError:
                return
            self.accepted.append(time.monotonic())
            try:
                far = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                near.close()
                continue
            with self._guard:
                self._open |= {near, far}
            for source, sink, outward in ((near, far, True), (far, near, False)):
                threading.Thread(
                    target=self._pump, args=(source, sink, outward), daemon=True
                ).start()

    def _pump(self, source: socket.socket, sink: socket.socket, outward: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
                if outward:
                    self.out += len(data)
                else:
                    self.back += len(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self._guard:
            self._open.discard(source)
        source.close()


@contextmanager
def wire(port: int) -> Iterator[Wire]:
    line = Wire(port)
    try:
        yield line
    finally:
        line.close()
