"""Which regular expressions a manifest may use: those that cannot be made to run for ever.

Python's matcher backtracks. An expression is let through when its cost on the longest value it can
meet is bounded: no back references, no look-around, no quantifier inside a quantifier, and
``max_length ** (number of unbounded quantifiers)`` steps at the most MAX_STEPS.
"""

from __future__ import annotations

import re
from typing import Any, Final

from sekisho.domain.errors import UsageError

MAX_STEPS: Final = 4_000_000
_FEW: Final = 16  # a quantifier of at most this many repeats counts as bounded
# The parser is not public, but it has been stable under this name since 3.11; a test would tell.
_parser: Any = re._parser  # type: ignore[attr-defined]  # noqa: SLF001
_REPEATS: Final = frozenset({"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"})
_ALLOWED: Final = frozenset({"LITERAL", "NOT_LITERAL", "ANY", "IN", "AT", "BRANCH", "SUBPATTERN"})


def check_pattern(pattern: str, max_length: int) -> re.Pattern[str]:
    """Return ``pattern`` compiled, or raise UsageError(`pattern.invalid` or `pattern.costly`)."""
    if len(pattern) > 1000:
        raise UsageError("pattern.costly", pattern=pattern[:80])
    try:
        tree = _parser.parse(pattern)
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError("pattern.invalid", pattern=pattern[:80]) from error
    if max_length ** _unbounded(tree, inside=False, pattern=pattern) > MAX_STEPS:
        raise UsageError("pattern.costly", pattern=pattern[:80])
    return compiled


def _unbounded(tree: Any, *, inside: bool, pattern: str) -> int:
    count = 0
    for op, argument in tree:
        name = str(op)
        if name in _REPEATS:
            _, high, body = argument
            if inside and high > 1:
                raise UsageError("pattern.costly", pattern=pattern[:80])
            count += int(high > _FEW) + _unbounded(body, inside=inside or high > 1, pattern=pattern)
        elif name == "BRANCH":
            count += sum(_unbounded(b, inside=inside, pattern=pattern) for b in argument[1])
        elif name == "SUBPATTERN":
            count += _unbounded(argument[-1], inside=inside, pattern=pattern)
        elif name not in _ALLOWED:
            raise UsageError("pattern.costly", pattern=pattern[:80])
    return count
