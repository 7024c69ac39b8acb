"""Which regular expressions a manifest may use: those that cannot be made to run for ever.

Python's matcher backtracks: it may try every way in which an expression can match a text. `ways`
bounds their number by the form of the expression alone, and what may have too many is refused.
Back references, look-around, conditions and whatever is newer than this module are refused too.
"""

from __future__ import annotations

import re
from typing import Any, Final

from sekisho.domain.errors import UsageError

MAX_WAYS: Final = 250_000  # some ten milliseconds
_TOO_MANY: Final = MAX_WAYS + 1
# The parser is not public, but it has been stable under this name since 3.11; a test would tell.
_parser: Any = re._parser  # type: ignore[attr-defined]  # noqa: SLF001
_REPEATS: Final = frozenset({"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"})
_SINGLE: Final = frozenset({"LITERAL", "NOT_LITERAL", "ANY", "IN", "AT"})


def check_pattern(pattern: str, max_length: int) -> re.Pattern[str]:
    """Return ``pattern`` compiled, or raise UsageError(`pattern.invalid` or `pattern.costly`)."""
    if len(pattern) > 1000:
        raise UsageError("pattern.costly", pattern=pattern[:80])
    try:
        tree = _parser.parse(pattern)
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError("pattern.invalid", pattern=pattern[:80]) from error
    if ways(tree, max_length) > MAX_WAYS:
        raise UsageError("pattern.costly", pattern=pattern[:80])
    return compiled


def ways(tree: Any, longest: int) -> int:
    """Return in how many ways at most the parsed expression matches the beginning of a text.

    The text has at most ``longest`` characters. Above MAX_WAYS the number is not exact.
    """
    total = 1
    for op, argument in tree:
        total = min(total * _ways_of(str(op), argument, longest), _TOO_MANY)
    return total


def _ways_of(name: str, argument: Any, longest: int) -> int:
    if name in _REPEATS:
        low, high, body = argument
        return _repeated(low, min(high, longest), ways(body, longest), longest)
    if name == "BRANCH":
        return sum(ways(branch, longest) for branch in argument[1])
    if name == "SUBPATTERN":
        return ways(argument[-1], longest)
    return 1 if name in _SINGLE else _TOO_MANY


def _repeated(low: int, high: int, each: int, longest: int) -> int:
    """Return the ways of ``low`` to ``high`` repeats in a row, of ``each`` ways every one."""
    if low > longest:
        return _TOO_MANY  # it can match nothing; whoever wrote it meant something else
    if each == 1:
        return high - low + 1
    total = 0
    for count in range(low, high + 1):
        total += each**count
        if total > MAX_WAYS:
            return _TOO_MANY
    return total
