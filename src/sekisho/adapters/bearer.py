"""The credential that every request to one broker carries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sekisho.domain.errors import ConfigError, Refused, Unauthenticated
from sekisho.domain.token import Secret

#: An old broker, and a gateway, may answer 403 to a token that has come to its end.
_REFUSALS: Final = (Unauthenticated.http_status, Refused.http_status)


class Bearer:
    """A token; after the broker refused it, what `again` reads, once for each refusal.

    So a program that runs for months takes up the token of a new `sekisho site join`. What cannot
    be read changes nothing. Safe between threads.
    """

    def __init__(self, token: Secret, again: Callable[[], Secret] | None = None) -> None:
        self._token = token
        self._again = again
        self._refused = False

    def header(self) -> tuple[bytes, bytes]:
        """Return the header that shows the token to the broker."""
        if self._refused and self._again is not None:
            self._refused = False
            try:
                self._token = self._again()
            except ConfigError:
                self._refused = True  # being replaced just now, perhaps: read before the next call
        return b"Authorization", f"Bearer {self._token.reveal()}".encode()

    def heed(self, status: int) -> None:
        """Take notice of the ``status`` of an answer."""
        if status in _REFUSALS:
            self._refused = True
