"""How help is laid out: click's way, also for text without spaces whose characters are wide."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

import click

from sekisho.cli.output import width

#: Where a line may break: after spaces, or between wide characters, not before what closes.
_PIECE: Final = re.compile(r"\s+|[「(]*(?:[!-'*-~]+|[^\s])[、。」),.:;]*")
_KEEP: Final = "\b\n"  #: in front of lines that click is to leave as they are


class Formatter(click.HelpFormatter):
    """Click's, which counts every character as one column and breaks lines at spaces."""

    def write_text(self, text: str) -> None:
        super().write_text(_laid_out(text, self.width - self.current_indent))

    def write_dl(
        self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        table = list(rows)
        longest = max((width(term) for term, _ in table), default=0)
        room = max(self.width - min(longest, col_max) - col_spacing - self.current_indent, 10)
        laid = [(term, _laid_out(meaning, room)) for term, meaning in table]
        super().write_dl(laid, col_max, col_spacing)


class Context(click.Context):
    """A call whose help is laid out so."""

    formatter_class = Formatter


def _laid_out(text: str, room: int) -> str:
    """Return ``text`` in lines that fit; text without wide characters is left to click."""
    if width(text) == len(text):
        return text
    return "\n\n".join(
        _KEEP + "\n".join(lines(paragraph, room)) for paragraph in text.strip().split("\n\n")
    )


def lines(paragraph: str, room: int) -> Iterator[str]:
    """Yield ``paragraph`` in lines of ``room`` columns; a longer word has a line of its own."""
    line = ""
    for piece in _PIECE.findall(paragraph):
        if line and width(line + piece.rstrip()) > room:
            yield line.rstrip()
            line = ""
        line += piece if line else piece.lstrip()
    if line:
        yield line.rstrip()
