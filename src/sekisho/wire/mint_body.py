"""JSON bodies with whole files in them, as base64: read and written in constant memory.

Coming in, every long string is lifted out of the text into a spool, decoded, and leaves a mark that
nobody can guess; what remains is a small document. Going out, marks are replaced by files.
"""

from __future__ import annotations

import binascii
import re
import secrets
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Final, TypeVar

import msgspec

from sekisho.domain.errors import TooLarge, UsageError
from sekisho.domain.limits import MIB

M = TypeVar("M")
#: A longer string is taken for a file's content.
_INLINE_BYTES: Final = 2048
#: What may be left of a body without its files.
MAX_DOCUMENT_BYTES: Final = MIB
#: What of a string lies before its end or, at the end of the data, before half an escape.
_RUN: Final = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_ESCAPE: Final = re.compile(rb"\\(?:u00([0-7][0-9a-fA-F])|([/nrt]))")
_ESCAPE_LENGTH: Final = 6
_WHITE: Final = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Piece:
    """A file's content: where it lies in the spool."""

    offset: int
    size: int


class _Decoder:
    """Writes one base64 string to the spool as it arrives."""

    def __init__(self, spool: IO[bytes]) -> None:
        self._spool = spool
        self._offset = spool.seek(0, 2)
        self._size = 0
        self._raw = b""
        self._rest = b""
        self._padded = False

    def feed(self, raw: bytes) -> None:
        raw = self._raw + raw
        cut = raw.rfind(b"\\", max(0, len(raw) - _ESCAPE_LENGTH + 1))
        cut = len(raw) if cut < 0 else cut
        self._raw = raw[cut:]
        self._decode(raw[:cut])

    def end(self) -> Piece:
        self._decode(self._raw)
        if self._rest:
            raise _broken("base64")
        return Piece(self._offset, self._size)

    def _decode(self, raw: bytes) -> None:
        if b"\\" in raw:
            raw = _ESCAPE.sub(_unescaped, raw)
        text = self._rest + raw.translate(None, _WHITE)
        whole = len(text) & ~3
        self._rest = text[whole:]
        if not whole:
            return
        if self._padded or text.endswith(b"===", 0, whole):
            raise _broken("base64")
        self._padded = text[whole - 1 : whole] == b"="
        try:
            data = binascii.a2b_base64(text[:whole], strict_mode=True)
        except binascii.Error as error:
            raise _broken("base64") from error
        self._size += self._spool.write(data)


def _unescaped(found: re.Match[bytes]) -> bytes:
    if found[1] is not None:
        return bytes.fromhex(found[1].decode())
    return b"/" if found[2] == b"/" else b""


def _broken(why: str) -> UsageError:
    return UsageError("message.invalid", why=why)


@dataclass(slots=True)
class Lifted:
    """A body without its long strings; those lie in ``spool``, under marks."""

    document: bytes
    spool: IO[bytes]
    pieces: dict[str, Piece]
    _taken: set[str] = field(default_factory=set)

    def decoded(self, kind: type[M]) -> M:
        """Return the document as ``kind``, or raise UsageError(`message.invalid`)."""
        try:
            return msgspec.json.decode(self.document, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise _broken("form") from error

    def content(self, text: str) -> Piece:
        """Return the content that a string of the document stands for."""
        if (piece := self.pieces.get(text)) is not None:
            self._taken.add(text)
            return piece
        decoder = _Decoder(self.spool)
        decoder.feed(text.encode("utf-8", "replace"))
        return decoder.end()

    def check_all_used(self) -> None:
        """Raise UsageError when a long string stood where no content belongs."""
        if self._taken != self.pieces.keys():
            raise _broken("length")


class Lifter:
    """Takes a body as it arrives. Feed it, then call `end`."""

    def __init__(self, spool: IO[bytes]) -> None:
        self._spool = spool
        self._document = bytearray()
        self._pieces: dict[str, Piece] = {}
        self._mark = secrets.token_hex(16)
        self._rest = b""
        self._text: bytearray | None = None  #: of the string that is open, if it is short so far
        self._decoder: _Decoder | None = None  #: of the string that is open, if it is long

    def feed(self, data: bytes) -> None:
        """Take the next bytes; raise UsageError or TooLarge."""
        data, at = self._rest + data, 0
        self._rest = b""
        while at < len(data):
            open_string = self._text is not None or self._decoder is not None
            at = self._within(data, at) if open_string else self._between(data, at)
        if len(self._document) > MAX_DOCUMENT_BYTES:
            raise TooLarge(limit=MAX_DOCUMENT_BYTES)

    def end(self) -> Lifted:
        """Return the whole; raise UsageError when it ends within a string."""
        if self._text is not None or self._decoder is not None:
            raise _broken("form")
        return Lifted(bytes(self._document), self._spool, self._pieces)

    def _between(self, data: bytes, at: int) -> int:
        quote = data.find(b'"', at)
        if quote < 0:
            self._document += data[at:]
            return len(data)
        self._document += data[at : quote + 1]
        self._text = bytearray()
        return quote + 1

    def _within(self, data: bytes, at: int) -> int:
        found = _RUN.match(data, at)
        end = found.end() if found else at
        self._string(data[at:end])
        if data[end : end + 1] == b'"':
            self._close()
            return end + 1
        self._rest = data[end:]  # half an escape, or nothing
        return len(data)

    def _string(self, raw: bytes) -> None:
        if self._decoder is not None:
            self._decoder.feed(raw)
        elif self._text is not None:
            self._text += raw
            if len(self._text) > _INLINE_BYTES:
                self._decoder = _Decoder(self._spool)
                self._decoder.feed(bytes(self._text))
                self._text = None

    def _close(self) -> None:
        if self._decoder is not None:
            mark = f"{self._mark}-{len(self._pieces)}"
            self._pieces[mark] = self._decoder.end()
            self._document += mark.encode()
        elif self._text is not None:
            self._document += self._text
        self._document += b'"'
        self._text = self._decoder = None


@dataclass(frozen=True, slots=True)
class Content:
    """A file on its way out: its size, and its bytes piece by piece, as often as asked for."""

    size: int
    pieces: Callable[[], Iterable[bytes]] = field(repr=False)


class Weaver:
    """Puts files into a document. `hole` stands for a file; `weave` fills the holes."""

    def __init__(self) -> None:
        self._mark = secrets.token_hex(16)
        self._contents: list[Content] = []

    def hole(self, content: Content) -> str:
        """Return the string that stands for ``content``."""
        self._contents.append(content)
        return f"{self._mark}-{len(self._contents) - 1}."

    def weave(self, document: Any) -> tuple[int, Iterator[bytes]]:
        """Return the length of the body that ``document`` is with its files, and its pieces."""
        parts = re.split(f"{self._mark}-([0-9]+)\\.".encode(), msgspec.json.encode(document))
        texts, holes = parts[::2], [self._contents[int(n)] for n in parts[1::2]]
        size = sum(map(len, texts)) + sum((hole.size + 2) // 3 * 4 for hole in holes)
        return size, _woven(texts, holes)


def _woven(texts: list[bytes], holes: list[Content]) -> Iterator[bytes]:
    for n, text in enumerate(texts):
        yield text
        if n < len(holes):
            yield from _encoded(holes[n])


def _encoded(content: Content) -> Iterator[bytes]:
    rest, size = b"", 0
    for piece in content.pieces():
        size += len(piece)
        data = rest + piece
        whole = len(data) // 3 * 3
        rest = data[whole:]
        yield b64encode(data[:whole])
    if size != content.size:
        raise _broken("size")
    yield b64encode(rest)
