"""Names of files that may cross a boundary, and patterns over them.

`RelPath` is the only file name that sekisho takes from, or gives to, another party. It has no
absolute form, no `..`, no control or invisible characters, and one spelling (NFC).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import Final

from sekisho.domain.errors import UsageError
from sekisho.domain.limits import MAX_DEPTH, MAX_NAME_BYTES, MAX_PATH_BYTES

_RESERVED: Final = r"(?i:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?"
_DEVICE: Final = re.compile(_RESERVED)
_DRIVE: Final = re.compile(r"[A-Za-z]:")
#: A component as nearly all are, right beyond doubt: only others are looked at more closely.
_PLAIN: Final = re.compile(
    rf"(?!{_RESERVED}\Z)[A-Za-z0-9_.+-]{{0,{MAX_NAME_BYTES - 1}}}[A-Za-z0-9_+-]"
)
#: Control, format (bidi, zero width), surrogate, private use, unassigned; line and paragraph end.
_UNSAFE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


@dataclass(frozen=True, slots=True, order=True)
class RelPath:
    """A relative path of safe components. Make one with `RelPath.parse`."""

    parts: tuple[str, ...]

    def __post_init__(self) -> None:
        if fault := _fault_of(self.parts):
            raise UsageError("path.invalid", path="/".join(self.parts)[:200], why=fault)

    @classmethod
    def parse(cls, text: str) -> RelPath:
        """Return the path written as ``text`` with ``/``; raise UsageError(`path.invalid`)."""
        return cls(tuple(text.split("/")))

    def __str__(self) -> str:
        return "/".join(self.parts)

    @property
    def key(self) -> str:
        """What two names must not share, also on file systems that fold case."""
        return key_of(self.parts)


def key_of(parts: tuple[str, ...]) -> str:
    """Return the `RelPath.key` of ``parts``, which are those of a path or of a folder above it."""
    return unicodedata.normalize("NFC", "/".join(parts).casefold())


def keys_above(parts: tuple[str, ...]) -> list[str]:
    """Return the keys of the folder ``parts`` and of those above it, shortest first."""
    return [key_of(parts[:n]) for n in range(1, len(parts) + 1)]


def _fault_of(parts: tuple[str, ...]) -> str | None:
    if not parts:
        return "component"
    if len(parts) > MAX_DEPTH:
        return "depth"
    if len("/".join(parts).encode("utf-8", "surrogatepass")) >= MAX_PATH_BYTES:
        return "length"
    unusual = (part for part in parts if not _PLAIN.fullmatch(part))
    return next((fault for part in unusual if (fault := _part_fault(part))), None)


def _part_fault(part: str) -> str | None:
    if part in ("", ".", "..") or "/" in part:
        return "component"
    if "\\" in part or _DRIVE.match(part):
        return "separator"
    if part != unicodedata.normalize("NFC", part):
        return "normalisation"
    if any(unicodedata.category(c) in _UNSAFE for c in part):
        return "character"
    if part[-1] in " ." or part[0] == " " or _DEVICE.fullmatch(part):
        return "reserved"
    return "length" if len(part.encode()) > MAX_NAME_BYTES else None


@dataclass(frozen=True, slots=True)
class Pattern:
    """A shell-like pattern over RelPath: ``*`` and ``?`` within a component, ``**`` across them.

    As in a shell, a wildcard never matches a leading dot: hidden files must be named.
    """

    text: str
    _parts: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parts = RelPath.parse(self.text).parts
        if any("**" in part and part != "**" for part in parts) or parts.count("**") > 1:
            raise UsageError("path.invalid", path=self.text, why="pattern")
        object.__setattr__(self, "_parts", parts)

    @property
    def literal(self) -> bool:
        return not any(c in self.text for c in "*?")

    def matches(self, path: RelPath) -> bool:
        """Say whether the pattern is one for ``path``, in time that no pattern can make long."""
        wanted, parts = self._parts, path.parts
        if "**" not in wanted:
            return len(wanted) == len(parts) and all(map(_fits, wanted, parts))
        before = wanted.index("**")
        after = len(wanted) - before - 1
        middle = parts[before : len(parts) - after]
        if len(parts) < before + after + int(after == 0):  # at the end it stands for a name
            return False
        return (
            all(map(_fits, wanted[:before], parts))
            and all(map(_fits, wanted[before + 1 :], parts[len(parts) - after :]))
            and not any(part.startswith(".") for part in middle)
        )


def _fits(pattern: str, name: str) -> bool:
    """Match one component. Back only ever to the last star: at most their lengths' product."""
    if pattern == name:
        return True
    if name.startswith(".") and pattern[0] in "*?":
        return False
    at, star, mark, here = 0, -1, 0, 0
    while here < len(name):
        wanted = pattern[at : at + 1]
        if wanted == "*":
            star, mark = at, here
            at += 1
        elif wanted in ("?", name[here]):
            at, here = at + 1, here + 1
        elif star >= 0:
            mark += 1
            at, here = star + 1, mark
        else:
            return False
    return not pattern[at:].strip("*")
