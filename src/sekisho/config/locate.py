"""Where, in a TOML text, a value was written.

tomllib gives values without positions. This finds the line of a key path such as
``("command", 0, "timeout")`` so that a fault can say ``site.toml:9``. It only has to be right for
documents that tomllib has accepted; when in doubt it answers with the nearest enclosing table.
"""

from __future__ import annotations

import re
from typing import Final

KeyPath = tuple[str | int, ...]

_HEADER: Final = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY: Final = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_ASSIGN: Final = re.compile(rf"^\s*({_KEY}(?:\s*\.\s*{_KEY})*)\s*=")
_PART: Final = re.compile(r"[A-Za-z0-9_-]+|\"([^\"]*)\"|'([^']*)'")


def line_of(text: str, wanted: KeyPath) -> int:
    """Return the 1-based line where ``wanted`` is set, or that of its nearest known parent."""
    places = _places(text)
    for end in range(len(wanted), 0, -1):
        if (line := places.get(wanted[:end])) is not None:
            return line
    return 1


def _places(text: str) -> dict[KeyPath, int]:
    places: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    fence = ""
    for number, line in enumerate(text.splitlines(), 1):
        if fence:
            fence = "" if fence in line else fence
        elif header := _HEADER.match(line):
            table = _table(header, counts)
            places.setdefault(table, number)
        elif assign := _ASSIGN.match(line):
            places[*table, *_keys(assign[1])] = number
            fence = next((q for q in ('"""', "'''") if line.count(q) % 2), "")
    return places


def _table(header: re.Match[str], counts: dict[KeyPath, int]) -> KeyPath:
    path = _resolve(_keys(header[2]), counts)
    if header[1] != "[[":
        return path
    counts[path] = counts.get(path, -1) + 1
    return (*path, counts[path])


def _keys(dotted: str) -> tuple[str, ...]:
    return tuple(
        next(text for text in (m[1], m[2], m[0]) if text is not None)
        for m in _PART.finditer(dotted)
    )


def _resolve(keys: tuple[str, ...], counts: dict[KeyPath, int]) -> KeyPath:
    """Insert the index of the latest element wherever a prefix names an array of tables."""
    path: KeyPath = ()
    for key in keys[:-1]:
        path = (*path, key)
        if path in counts:
            path = (*path, counts[path])
    return (*path, *keys[-1:])
