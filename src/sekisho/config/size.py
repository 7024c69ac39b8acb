"""Sizes and times as their owner writes them: bytes or text such as "100 MiB", seconds."""

from __future__ import annotations

import re
from typing import Annotated, Final

from msgspec import Meta

from sekisho.config.form import formed

_UNITS: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
Size = (
    Annotated[int, Meta(ge=0, le=1 << 50)]
    | Annotated[str, formed("size", r"[0-9]{1,6} ?(B|KiB|MiB|GiB|TiB)")]
)
Seconds = Annotated[float, Meta(gt=0, le=366 * 86_400)]


def size_of(size: int | str) -> int:
    """Return ``size`` in bytes."""
    if isinstance(size, int):
        return size
    number, unit = re.fullmatch(r"([0-9]+) ?([A-Za-z]+)", size).groups()  # type: ignore[union-attr]
    return int(number) * _UNITS[unit]
