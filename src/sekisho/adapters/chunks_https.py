"""ChunkPort over HTTP: parts small enough for any proxy, resumed chunk by chunk.

POST {base}/missing   chunks of 36 bytes each   ->  digests of those not there, 32 bytes each
PUT  {base}           frames                    ->  2xx once all of them are stored
POST {base}/fetch     digests                   ->  frames
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from sekisho.adapters.http_line import BYTES, Call, HttpLine
from sekisho.domain.errors import IntegrityError, SekishoError, TooLarge, Unreachable
from sekisho.domain.limits import MAX_PART_BYTES
from sekisho.wire.frames import (
    Chunk,
    FrameReader,
    frame,
    pack_chunks,
    pack_digests,
    unpack_digests,
)


class HttpsChunks:
    """The chunks of one job, below ``base``; ``query`` goes with every request."""

    def __init__(self, line: HttpLine, base: str, query: Mapping[str, str] | None = None) -> None:
        self._line = line
        self._base = base
        self._query = query
        self._part_bytes = MAX_PART_BYTES

    def _call(self, method: str, below: str, body: bytes) -> Call:
        path = self._base + below
        return Call(method=method, path=path, body=body, content_type=BYTES, query=self._query)

    def missing(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        by_digest = {c.digest: c for c in chunks}
        answer = self._line.send(self._call("POST", "/missing", pack_chunks(chunks)))
        digests = dict.fromkeys(unpack_digests(answer))
        if not digests.keys() <= by_digest.keys():
            raise Unreachable("broker.strange_answer", status=200)
        return [by_digest[d] for d in digests]

    def send(self, chunks: Iterable[tuple[Chunk, bytes]]) -> None:
        part: list[bytes] = []
        size = 0
        for chunk, data in chunks:
            piece = frame(chunk.digest, data)
            if part and size + len(piece) > self._part_bytes:
                self._put(part)
                part, size = [], 0
            part.append(piece)
            size += len(piece)
        if part:
            self._put(part)

    def _put(self, part: Sequence[bytes]) -> None:
        """Send one part; if something on the way finds it too long, send its halves."""
        body = b"".join(part)
        try:
            self._line.send(self._call("PUT", "", body))
        except TooLarge:
            if len(part) == 1:
                raise
            self._part_bytes = len(body) // 2
            half = len(part) // 2
            self._put(part[:half])
            self._put(part[half:])

    def fetch(self, chunks: Sequence[Chunk]) -> Iterator[tuple[Chunk, bytes]]:
        owed = dict.fromkeys(chunks)
        pauses = self._line.pauses()
        while owed:
            before = len(owed)
            try:
                for chunk, data in self._fetch_once(list(owed)):
                    if chunk not in owed:
                        raise IntegrityError("chunk.unexpected")
                    del owed[chunk]
                    yield chunk, data
                if owed:
                    raise Unreachable(why="cut")
            except SekishoError as error:
                if len(owed) < before:
                    pauses.progressed()
                pauses.after(error)

    def _fetch_once(self, chunks: Sequence[Chunk]) -> Iterator[tuple[Chunk, bytes]]:
        body = pack_digests(c.digest for c in chunks)
        reader = FrameReader()
        with self._line.stream(self._call("POST", "/fetch", body)) as pieces:
            for piece in pieces:
                yield from reader.feed(piece)
        try:
            reader.end()
        except IntegrityError as error:
            raise Unreachable(why="cut") from error
