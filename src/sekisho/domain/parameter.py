"""Typed parameters: what a value of a command line may be.

A value arrives as JSON (or as text from a command line), is checked against its type, and leaves
as text for one argument. Nothing is interpreted: no shell, no control characters, no surprises.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from typing import Final

from sekisho.domain.errors import Refused
from sekisho.domain.limits import MAX_VALUE_LENGTH
from sekisho.domain.regex import check_pattern

Value = int | float | bool | str
_UNSAFE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER: Final = re.compile(
    r"[+-]?([0-9]{1,40}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][+-]?[0-9]{1,3})?"
)
_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Integer:
    """A whole number in ``minimum..maximum``, written in decimal."""

    minimum: int
    maximum: int
    default: int | None = None

    def render(self, name: str, value: Value) -> str:
        if isinstance(value, str) and _INTEGER.fullmatch(value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise _invalid(name, "type")
        if not self.minimum <= value <= self.maximum:
            raise _invalid(name, "range")
        return str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A finite number in ``minimum..maximum``: the shortest text that reads back equal."""

    minimum: float
    maximum: float
    default: float | None = None

    def render(self, name: str, value: Value) -> str:
        if isinstance(value, str) and _NUMBER.fullmatch(value):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _invalid(name, "type")
        if not self.minimum <= value <= self.maximum or not _finite(value):
            raise _invalid(name, "range")
        return repr(float(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Boolean:
    """A switch. With ``flag`` that text is the argument when true, and there is none when false."""

    default: bool | None = None
    flag: str | None = None

    def render(self, name: str, value: Value) -> str | None:
        if isinstance(value, str):
            value = {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)}.get(value, value)
        if not isinstance(value, bool):
            raise _invalid(name, "type")
        if self.flag is None:
            return "true" if value else "false"
        return self.flag if value else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Characters that match ``pattern`` as a whole, at most ``max_length`` of them."""

    pattern: str
    max_length: int = 256
    default: str | None = None
    leading_dash: bool = False  #: the site says that a value may start with ``-``

    def __post_init__(self) -> None:
        check_pattern(self.pattern, self.max_length)

    def render(self, name: str, value: Value) -> str:
        text = _text(name, value, self.max_length)
        if re.fullmatch(self.pattern, text) is None:
            raise _invalid(name, "pattern")
        if text.startswith("-") and not self.leading_dash:
            raise _invalid(name, "leading_dash")
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One of the listed texts."""

    values: tuple[str, ...]
    default: str | None = None

    def render(self, name: str, value: Value) -> str:
        text = _text(name, value, MAX_VALUE_LENGTH)
        if text not in self.values:
            raise _invalid(name, "choice")
        return text


Parameter = Integer | Number | Boolean | Text | Choice


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


def _text(name: str, value: Value, max_length: int) -> str:
    if not isinstance(value, str):
        raise _invalid(name, "type")
    if len(value) > max_length:
        raise _invalid(name, "length")
    check_text(name, value)
    return value


def check_text(name: str, value: str) -> None:
    """Raise Refused(`parameter.invalid`) for a character that no value may have."""
    if any(unicodedata.category(c) in _UNSAFE for c in value):
        raise _invalid(name, "character")


def _invalid(name: str, why: str) -> Refused:
    """Return the refusal. The value is not repeated: the caller knows it, and logs need not."""
    return Refused("parameter.invalid", parameter=name, why=why)
