"""What a command prints. Names and words of others never steer the terminal."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sekisho.domain.setting import SettingFault
from sekisho.i18n.catalogue import Sentence, sentence

if TYPE_CHECKING:
    from sekisho.cli.session import Session
    from sekisho.domain.errors import SekishoError

#: Control, format (bidi, zero width), surrogate, private use, unassigned; line separators.
_UNSAFE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
#: What separates words, or could seem to.
_AMBIGUOUS: Final = re.compile(r"[\s\"'\[\]\\]|^$")
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"


def safe(text: str) -> str:
    """Return ``text`` without what could move a cursor, hide or reorder characters."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_REPLACEMENT if unicodedata.category(c) in _UNSAFE else c for c in text)


def word(text: str) -> str:
    """Return ``text`` so that it is seen where it begins and ends: quoted, if it needs to be."""
    return json.dumps(text, ensure_ascii=False) if _AMBIGUOUS.search(text) else text


def safe_lines(text: str) -> str:
    return "\n".join(safe(line) for line in text.split("\n"))


def result(session: Session, text: str) -> None:
    """Print a line of the result."""
    print(safe(text), file=session.out, flush=True)


def note(session: Session, text: str) -> None:
    """Tell the user something that is not the result."""
    if not session.silent:
        with suppress(OSError):  # nobody reads it, or there is no room: the work goes on
            print(safe_lines(text), file=session.err, flush=True)


def result_json(session: Session, value: object) -> None:
    """Print one JSON value on one line. A key is there also where it says what is usual."""
    import msgspec  # noqa: PLC0415

    whole = _whole(value)
    try:
        encoded = msgspec.json.encode(whole, enc_hook=_encoded).decode()
    except UnicodeEncodeError:  # a file's name is bytes; those that are no UTF-8 stay as they are
        encoded = json.dumps(msgspec.to_builtins(whole, enc_hook=_encoded))
    print(encoded, file=session.out, flush=True)


def _whole(value: object) -> object:
    """Return ``value`` with all fields of its messages; on the wire, what is usual is left out."""
    from msgspec import Struct, structs  # noqa: PLC0415

    if isinstance(value, Struct):
        return {name: _whole(part) for name, part in structs.asdict(value).items()}
    if isinstance(value, Mapping):
        return {name: _whole(part) for name, part in value.items()}
    return [_whole(part) for part in value] if isinstance(value, list) else value


def done(session: Session, text: str, facts: Mapping[str, object]) -> None:
    """Print what a command did: ``text`` for people, ``facts`` for programs."""
    if session.json:
        result_json(session, facts)
    else:
        result(session, text)


def _encoded(value: object) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise NotImplementedError


def columns(session: Session, rows: Sequence[Sequence[str]]) -> None:
    """Print ``rows`` with their columns aligned."""
    for line in aligned(rows):
        result(session, line)


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a line for each of ``rows``, their columns aligned, wide characters counted as two."""
    cells = [[safe(cell) for cell in row] for row in rows]
    widths = [max(map(width, column), default=0) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = (c + " " * (w - width(c)) for c, w in zip(row, widths, strict=True))
        yield "  ".join(padded).rstrip()


def width(text: str) -> int:
    """Return how many columns ``text`` takes in a terminal."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def error(session: Session, failure: SekishoError) -> None:
    """Print an error: what happened, the site's reason if any, and what to do next."""
    lines = list(_lines(session, failure.code, failure.params, "error"))
    reason = getattr(failure, "result", None)
    if reason is not None and reason.code is not None:
        lines[1:1] = _lines(session, reason.code, reason.params, "reason")
    if session.json:
        what = what_of(session, failure)
        params = {
            k: v if isinstance(v, int | float | list) else str(v) for k, v in failure.params.items()
        }
        result_json(session, {"error": {"code": failure.code, "params": params, "what": what}})
        return
    for line in lines:
        print(safe_lines(line), file=session.err, flush=True)


def what_of(session: Session, failure: SekishoError) -> str:
    """Return what happened, in words; what the other side said of it is on no line of its own."""
    return _sentence(session, failure.code, failure.params).what


def _sentence(session: Session, code: str, params: Mapping[str, object]) -> Sentence:
    return sentence(
        safe(code), {name: _tame(value) for name, value in params.items()}, session.lang
    )


def _tame(value: object) -> object:
    if isinstance(value, list | tuple):
        return [_tame(item) for item in value]
    if isinstance(value, SettingFault):
        params = {name: _tame(param) for name, param in value.params.items()}
        return replace(value, file=safe(value.file), key=safe(value.key), params=params)
    return None if value is None else safe(str(value))


def _lines(session: Session, code: str, params: Mapping[str, object], kind: str) -> Iterable[str]:
    made = _sentence(session, code, params)
    yield f"{kind}[{safe(code)}]: {made.what}"
    if made.next:
        yield f"  {made.next}"
