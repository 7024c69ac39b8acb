"""What sends requests to a server that is a function of the test, in this very process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import httpcore2
import httpx2

from sekisho.adapters.bearer import Bearer
from sekisho.adapters.http_sender import Sender, Target
from sekisho.domain.token import Secret

ORIGIN = httpcore2.Origin(b"https", b"broker.example", 443)


class MemoryConnection(httpcore2.ConnectionInterface):
    """One connection to ``server``."""

    def __init__(self, server: httpx2.BaseTransport) -> None:
        self._server = server

    def handle_request(self, request: httpcore2.Request) -> httpcore2.Response:
        assert isinstance(request.stream, Iterable)
        asked = httpx2.Request(
            request.method.decode(),
            f"https://broker.example{request.url.target.decode()}",
            headers=request.headers,
            content=b"".join(request.stream),
        )
        try:
            answer = self._server.handle_request(asked)
        except httpx2.RequestError as error:
            raise _below(error) from error
        return httpcore2.Response(
            answer.status_code, headers=answer.headers.raw, content=_pieces(answer)
        )

    def is_available(self) -> bool:
        return True

    def has_expired(self) -> bool:
        return False

    def close(self) -> None:
        """Do nothing."""


def memory_sender(server: httpx2.BaseTransport) -> Sender:
    """Return what sends to ``server``."""
    return Sender(Target(ORIGIN, "/", (), Bearer(Secret("t"))), lambda: MemoryConnection(server))


def _pieces(answer: httpx2.Response) -> Iterator[bytes]:
    try:
        yield from answer.iter_raw()
    except httpx2.RequestError as error:
        raise _below(error) from error


def _below(error: httpx2.RequestError) -> Exception:
    """Return the error of the library below that has the same name."""
    kind: type[Exception] = getattr(httpcore2, type(error).__name__)
    return kind(str(error))
