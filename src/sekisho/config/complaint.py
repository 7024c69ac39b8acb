"""What msgspec says of a wrong value, as an error of ours: a code and parameters.

Its sentences are English and have no code. A parameter whose name ends in `_type` is a type as
msgspec writes it (``int | str``); the catalogue has a word for each.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal, get_args, get_origin

import msgspec

from sekisho.config.form import form_of
from sekisho.domain.errors import UsageError

_PLACE: Final = re.compile(r" - at (?:`(?P<part>key|value)` in )?`\$(?P<where>[^`]*)`\Z")
_FORMS: Final = tuple(
    (re.compile(form, re.DOTALL), code)
    for form, code in (
        (r"Expected `(?P<wanted_type>[^`]+)`, got `(?P<given_type>[^`]+)`", "setting.type"),
        (r"Expected `\w+` of length (?P<bound>[<>=]+ \d+)", "setting.length"),
        (r"Expected `\w+` (?P<bound>[<>=]+ -?[\w.+-]+)", "setting.range"),
        (r"Expected `\w+` matching regex (?P<form>.*)", "setting.form"),
        (r"Object contains unknown field `(?P<name>[^`]*)`", "setting.unknown"),
        (r"Object missing required field `(?P<name>[^`]*)`", "setting.lacking"),
    )
)


def complaint(error: msgspec.ValidationError, kind: Any) -> tuple[str, UsageError]:
    """Return where below the value ``error`` is (``[0].path``; "" for itself), and what it is.

    ``kind`` is the type that the value should have had.
    """
    said = str(error)
    place = _PLACE.search(said)
    where = place["where"] if place else ""
    said = (said[: place.start()] if place else said).replace(" | null", "")  # none in TOML
    if said.startswith("Invalid enum value "):
        value = said.removeprefix("Invalid enum value ").strip("'")
        return where, UsageError("setting.choice", value=value, choices=", ".join(_choices(kind)))
    for form, code in _FORMS:
        if (match := form.fullmatch(said)) is not None:
            params = match.groupdict()
            if "form" in params:
                params["form"] = form_of(params["form"], kind)
            return where, UsageError(code, **params)
    return where, UsageError("setting.wrong", why=said)


def _choices(kind: Any) -> list[str]:
    """Return the texts and numbers that ``kind``, or a part of it, may be."""
    if get_origin(kind) is Literal:
        return [str(value) for value in get_args(kind)]
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return [c for field in msgspec.structs.fields(kind) for c in _choices(field.type)]
    return [choice for part in get_args(kind) for choice in _choices(part)]
