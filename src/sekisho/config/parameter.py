"""The manifest's tables of parameters, read into `sekisho.domain.parameter`."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from sekisho.config.load import Faults
from sekisho.config.locate import KeyPath
from sekisho.domain import parameter as parameters
from sekisho.domain.errors import SekishoError, UsageError

T = TypeVar("T")
Word = Annotated[str, Meta(min_length=1, max_length=4096)]


class ParameterTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One parameter; which keys it needs depends on its type."""

    type: Literal["integer", "number", "boolean", "text", "choice"]
    minimum: int | float | None = None
    maximum: int | float | None = None
    pattern: str | None = None
    max_length: Annotated[int, Meta(ge=1, le=4096)] | None = None
    leading_dash: bool | None = None
    values: Annotated[list[Word], Meta(min_length=1)] | None = None
    flag: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    default: int | float | bool | str | None = None


def parameter_faults(entry: dict[str, Any], at: KeyPath) -> Faults:
    """Find what is wrong with a command's parameters beyond types."""
    tables = entry.get("parameters")
    for name, given in (tables if isinstance(tables, dict) else {}).items():
        try:
            table = msgspec.convert(given, ParameterTable)
        except msgspec.ValidationError:
            continue  # told already, with the key
        try:
            parameter(name, table)
        except SekishoError as error:
            yield (*at, "parameters", name), error


#: Which keys each type needs and allows, besides `type` and `default`.
_KEYS: Final = {
    "integer": ({"minimum", "maximum"}, set[str]()),
    "number": ({"minimum", "maximum"}, set[str]()),
    "boolean": (set[str](), {"flag"}),
    "text": ({"pattern"}, {"max_length", "leading_dash"}),
    "choice": ({"values"}, set[str]()),
}


def parameter(name: str, table: ParameterTable) -> parameters.Parameter:
    """Return the parameter that ``table`` writes down; raise a SekishoError."""
    given = {
        key: value
        for key, value in msgspec.structs.asdict(table).items()
        if value is not None and key not in ("type", "default")
    }
    needed, allowed = _KEYS[table.type]
    if lacking := needed - given.keys():
        raise UsageError("setting.lacking", name=min(lacking))
    if extra := given.keys() - needed - allowed:
        raise UsageError("parameter.key", name=min(extra), type=table.type)
    made = _made(table, given)
    for word in (*(table.values or ()), table.flag or ""):
        parameters.check_text(name, word)
    if made.default is not None:
        made.render(name, made.default)
    return made


def _made(table: ParameterTable, given: dict[str, Any]) -> parameters.Parameter:
    match table.type:
        case "integer":
            kind = int
            low, high = _typed(given["minimum"], int), _typed(given["maximum"], int)
            _ordered(low, high)
            return parameters.Integer(
                minimum=low, maximum=high, default=_default(table.default, kind)
            )
        case "number":
            low_n, high_n = float(given["minimum"]), float(given["maximum"])
            _ordered(low_n, high_n)
            default = table.default
            return parameters.Number(
                minimum=low_n,
                maximum=high_n,
                default=None if default is None else float(_typed(default, float)),
            )
        case "boolean":
            return parameters.Boolean(default=_default(table.default, bool), flag=table.flag)
        case "text":
            return parameters.Text(**given, default=_default(table.default, str))
        case "choice":
            values = tuple(given["values"])
            return parameters.Choice(values=values, default=_default(table.default, str))


def _ordered(low: float, high: float) -> None:
    if not low <= high:  # nor is there an order with what is no number
        raise UsageError("setting.bounds")


def _default(value: Any, kind: type[T]) -> T | None:
    return None if value is None else _typed(value, kind)


def _typed(value: Any, kind: type[T]) -> T:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        given = type(value).__name__
        raise UsageError("setting.type", wanted_type=kind.__name__, given_type=given)
    return value
