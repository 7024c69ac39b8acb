"""A page of the documents, as far as a test can execute it: code blocks and directives, in order.

A shell block names the machine that it is typed on, and says `server` when it runs until stopped:

    ```sh site server

A directive stands in an HTML comment, because people do by hand what it does for the test:

    <!-- test: copy broker/invitation site/invitation -->
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = frozenset({"sh", "python", "toml", "json", "text", "nginx", "mermaid"})
EXECUTED = frozenset({"sh", "python"})
_PIECE = re.compile(
    r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$|^<!-- test: (?P<directive>[^\n]*) -->$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Block:
    """Code in a fence: its language, the words after it, and the code."""

    language: str
    words: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Directive:
    """What people do by hand, or what must have been done before."""

    words: tuple[str, ...]


def pages() -> list[str]:
    """Return the names of all pages for users."""
    places = ("README*.md", "docs/en/*.md", "docs/ja/*.md", "examples/README*.md")
    return sorted(str(path.relative_to(ROOT)) for place in places for path in ROOT.glob(place))


def pieces(name: str) -> list[Block | Directive]:
    """Return the blocks and directives of a page in their order."""
    found: list[Block | Directive] = []
    for match in _PIECE.finditer((ROOT / name).read_text("utf-8")):
        if match["directive"] is not None:
            found.append(Directive(tuple(match["directive"].split())))
        else:
            language, *words = match["info"].split() or [""]
            found.append(Block(language, tuple(words), match["text"]))
    return found
