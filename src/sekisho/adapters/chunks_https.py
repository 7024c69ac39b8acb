"""ChunkPort over HTTP: parts as long as the way bears them, resumed chunk by chunk.

POST {base}/missing   chunks of 36 bytes each   ->  digests of those not there, 32 bytes each
PUT  {base}           frames                    ->  2xx once all of them are stored
POST {base}/fetch     digests                   ->  frames (verify=true: the broker looks first)

Packing, unpacking and verifying go on beside the line, and parts are on the way on more than one
connection; both in bounded memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from sekisho.adapters.http_line import BYTES, HttpLine
from sekisho.adapters.http_sender import Call
from sekisho.adapters.patience import Pauses
from sekisho.domain.errors import (
    IntegrityError,
    SekishoError,
    TooLarge,
    Unreachable,
)
from sekisho.domain.limits import MIB
from sekisho.transfer.pipeline import as_done, flowed, mapped
from sekisho.wire.frames import (
    Chunk,
    Frame,
    FrameReader,
    Sound,
    pack_chunks,
    pack_digests,
    packed,
    unpack_digests,
)

#: Enough to keep a line busy while others wait for its far end, and for the broker's disk.
_CONNECTIONS: Final = 4
#: One answer brings so much: enough to hide what asking costs, little enough for others to share.
_STREAM_BYTES: Final = 32 * MIB
#: Less is not worth another connection.
_LEAST_STREAM_BYTES: Final = 4 * MIB
_NO_QUERY: Final[Mapping[str, str]] = MappingProxyType({})
_Piece = tuple[Chunk, Frame]
_Come = tuple[str, Sound | None]  #: a digest, and what came if it is that


class HttpsChunks:
    """The chunks of one job, below ``base``; ``query`` goes with every request.

    They are fetched on up to ``connections`` at a time.
    """

    def __init__(
        self,
        line: HttpLine,
        base: str,
        query: Mapping[str, str] = _NO_QUERY,
        *,
        connections: int = _CONNECTIONS,
    ) -> None:
        self._line = line
        self._connections = connections
        self._base = base
        self._query = query
        self.moved = 0  #: chunks that got through, either way

    def _call(
        self, method: str, below: str, body: bytes, query: Mapping[str, str] = _NO_QUERY
    ) -> Call:
        return Call(
            method=method,
            path=self._base + below,
            body=body,
            content_type=BYTES,
            query={**self._query, **query},
        )

    def missing(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        by_digest = {c.digest: c for c in chunks}
        answer = self._line.send(self._call("POST", "/missing", pack_chunks(chunks)))
        digests = dict.fromkeys(unpack_digests(answer))
        if not digests.keys() <= by_digest.keys():
            raise Unreachable("broker.strange_answer", status=200)
        return [by_digest[d] for d in digests]

    def send(self, chunks: Iterable[tuple[Chunk, bytes]]) -> None:
        parts = self._parts(mapped(_packed, chunks))
        ahead = _CONNECTIONS + 1  # one is made meanwhile
        for trouble in as_done(self._try, parts, threads=_CONNECTIONS, ahead=ahead):
            if trouble is not None:
                self._insist(*trouble)

    def _parts(self, pieces: Iterable[_Piece]) -> Iterator[list[_Piece]]:
        part: list[_Piece] = []
        size = limit = 0
        for piece in pieces:
            if part and size + len(piece[1]) > limit:
                yield part
                part, size = [], 0
            if not part:
                limit = self._line.part_size.begin()
            part.append(piece)
            size += len(piece[1])
        if part:
            yield part

    def _try(self, part: list[_Piece]) -> tuple[list[_Piece], SekishoError] | None:
        """Send one part once; return it with what went wrong."""
        body = b"".join(piece for _, frame in part for piece in frame.pieces())
        began = self._line.patience.monotonic()
        try:
            self._line.send_once(self._call("PUT", "", body))
        except SekishoError as error:
            if isinstance(error, TooLarge):
                self._line.part_size.refused(len(body))
            else:
                self._line.part_size.cut(len(body))
            return part, error
        self.moved += len(part)
        self._line.part_size.bore(len(body), self._line.patience.monotonic() - began)
        return None

    def _insist(self, owed: list[_Piece], error: SekishoError) -> None:
        """Send what of a part did not arrive, in shorter ones, for as long as patience lasts.

        What was right when it left, and was refused as something else, is sent once more.
        """
        pauses = _Lenient(self._line.pauses())
        trouble: tuple[list[_Piece], SekishoError] | None = owed, error
        while trouble is not None:
            part, error = trouble
            if _garbled(error) and (_undeclared(part, error) or not _sound(part)):
                raise error
            if not isinstance(error, TooLarge) or len(part) == 1:
                pauses.after(error)
            if not isinstance(error, TooLarge):
                owed = self._lacking(owed)
            trouble = None
            for part in self._parts(list(owed)):
                if (trouble := self._try(part)) is not None:
                    break
                owed = owed[len(part) :]
                pauses.progressed()

    def _lacking(self, owed: list[_Piece]) -> list[_Piece]:
        lacking = set(self.missing([chunk for chunk, _ in owed]))
        self.moved += len(owed) - len(lacking)
        return [piece for piece in owed if piece[0] in lacking]

    def fetch(self, chunks: Sequence[Chunk]) -> Iterator[Sound]:
        owed = {chunk.digest: chunk for chunk in chunks}
        doubted: list[Chunk] = []
        pauses = _Lenient(self._line.pauses())
        while owed:
            before = len(owed)
            try:
                for digest, sound in self._flow(list(owed.values())):
                    if digest not in owed:
                        raise IntegrityError("chunk.unexpected")
                    chunk = owed.pop(digest)
                    if sound is None or sound[0] != chunk:
                        doubted.append(chunk)
                        continue
                    self.moved += 1
                    yield sound
                if owed:
                    raise Unreachable(why="cut")
            except SekishoError as error:
                if len(owed) < before:
                    pauses.progressed()
                pauses.after(error)
        yield from map(self._looked_at, doubted)

    def _flow(self, chunks: Sequence[Chunk]) -> Iterator[_Come]:
        """Ask once for each chunk, on as many connections as that is worth; give what comes."""
        size = sum(chunk.size for chunk in chunks)
        shares = 1 if self._connections == 1 else 2 * self._connections
        part = min(max(size // shares, _LEAST_STREAM_BYTES), _STREAM_BYTES)
        return flowed(
            lambda asked: map(_opened, self._fetch_once(asked)),
            _of_size(chunks, part),
            threads=min(self._connections, -(-size // part)) or 1,
            ahead=2 * _CONNECTIONS,
        )

    def _looked_at(self, chunk: Chunk) -> Sound:
        """Fetch what came wrong after the broker has looked at it: it names its own damage."""
        pauses = self._line.pauses()
        while True:
            try:
                for frame in self._fetch_once([chunk], verify=True):
                    if frame.chunk == chunk:
                        return frame.opened()
                raise IntegrityError("chunk.unexpected")
            except SekishoError as error:
                pauses.after(error)

    def _fetch_once(self, chunks: Sequence[Chunk], *, verify: bool = False) -> Iterator[Frame]:
        body = pack_digests(c.digest for c in chunks)
        reader = FrameReader()
        query = {"verify": "true"} if verify else {}
        with self._line.stream(self._call("POST", "/fetch", body, query)) as pieces:
            for piece in pieces:
                yield from reader.split(piece)
        try:
            reader.end()
        except IntegrityError as error:
            raise Unreachable(why="cut") from error


def _of_size(chunks: Iterable[Chunk], size: int) -> Iterator[list[Chunk]]:
    """Return ``chunks`` in lists of ``size`` bytes or little more."""
    part: list[Chunk] = []
    room = size
    for chunk in chunks:
        part.append(chunk)
        room -= chunk.size
        if room <= 0:
            yield part
            part, room = [], size
    if part:
        yield part


def _opened(frame: Frame) -> _Come:
    try:
        return frame.digest, frame.opened()
    except (IntegrityError, TooLarge):
        return frame.digest, None


class _Lenient:
    """Pauses of one piece of work that forgive the line what it garbled, once."""

    def __init__(self, pauses: Pauses) -> None:
        self._pauses = pauses
        self._forgave = False
        self.progressed = pauses.progressed

    def after(self, error: SekishoError) -> None:
        if self._forgave or not _garbled(error):
            self._pauses.after(error)
        self._forgave = self._forgave or _garbled(error)


def _garbled(error: SekishoError) -> bool:
    """Say whether frames arrived, there or here, that nobody who means well has sent."""
    return isinstance(error, IntegrityError) or error.code == "chunk.too_large"


def _undeclared(part: Sequence[_Piece], error: SekishoError) -> bool:
    """Say whether a chunk came there as it left and had not been asked about: our own fault."""
    named = error.params.get("digest") if error.code == "chunk.undeclared" else None
    return any(named == chunk.digest for chunk, _ in part)


def _sound(part: Sequence[_Piece]) -> bool:
    """Say whether a part is right as it lies here."""
    return all(_opened(frame)[1] is not None and frame.chunk == chunk for chunk, frame in part)


def _packed(content: tuple[Chunk, bytes]) -> _Piece:
    chunk, data = content
    return chunk, packed(chunk.digest, data)
