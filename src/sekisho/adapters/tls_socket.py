"""A TLS socket that reads what has arrived, not one record of 16 KiB at a time.

Whoever reads pays for every call, and for every piece that a call returns.
"""

from __future__ import annotations

import ssl
from typing import Final

_RECORD_BYTES: Final = 16 << 10
#: Whoever asks for this much asks for as much as there is, and gets it.
_MUCH_BYTES: Final = 64 << 10
#: So much is returned at most.
_MOST_BYTES: Final = 256 << 10


class WideSocket(ssl.SSLSocket):
    """Set it as an SSLContext's ``sslsocket_class``."""

    _room: memoryview | None = None  #: what is read into; one thread at a time reads

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Return at most ``buflen`` bytes; or 256 KiB, when 64 KiB or more are asked for."""
        first = super().recv(buflen, flags)
        if len(first) < _RECORD_BYTES or buflen < _MUCH_BYTES:
            return first
        if self._room is None:
            self._room = memoryview(bytearray(_MOST_BYTES))
        self._room[: len(first)] = first
        size = self._more(self._room, len(first))
        return bytes(self._room[:size])

    def _more(self, room: memoryview, size: int) -> int:
        """Read what else has arrived, without waiting; return how much there is then."""
        patience = self.gettimeout()
        self.settimeout(0)
        try:
            while size < len(room) and (read := self.recv_into(room[size:])):
                size += read
        except OSError:
            pass  # no more is here; an error of the line is told again by the next call
        finally:
            self.settimeout(patience)
        return size
