"""Telling the service manager how we are: systemd's notification protocol (sd_notify(3)).

Outside of a service nothing is told. A message that cannot be sent is dropped: it is never worth
more than the work.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress


class ServiceManager:
    """Whoever started us as a service, if anybody did."""

    def __init__(self, address: str | None = None) -> None:
        given = os.environ.get("NOTIFY_SOCKET", "") if address is None else address
        self._address = f"\0{given[1:]}" if given.startswith("@") else given
        self._status = ""

    def ready(self, status: str = "") -> None:
        """Say that the service is up."""
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, text: str) -> None:
        """Show ``text``, one line, to whoever asks how the service is."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def alive(self) -> None:
        """Keep the watchdog quiet; to be called at every turn of the service's main loop."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Say that the service has begun to end."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notice:
            notice.sendto(message.encode(), self._address)
