"""Read a TOML file into a typed value, or say everything that is wrong with it."""

from __future__ import annotations

import errno
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Final, TypeVar, get_args, get_origin

import msgspec

from sekisho.config.complaint import complaint
from sekisho.config.locate import KeyPath, line_of
from sekisho.domain.errors import ConfigError, SekishoError, UsageError
from sekisho.domain.setting import SettingFault

T = TypeVar("T", bound=msgspec.Struct)
#: Where in the document something is wrong, and what.
Faults = Iterator[tuple[KeyPath, SekishoError]]

#: The longest text that is read as settings; a device, say, has no end.
MAX_LENGTH: Final = 16 << 20
ENVIRONMENT_PREFIX: Final = "SEKISHO_"
_TOML_LINE: Final = re.compile(r"\(at line (\d+)")
_STEP: Final = re.compile(r"\[(\d+)\]|[A-Za-z_][A-Za-z0-9_]*")


def invalid(faults: Sequence[SettingFault]) -> ConfigError:
    """Return the error that tells all ``faults`` at once, in the order of the file."""
    return ConfigError("config.invalid", faults=sorted(faults))


def fault_at(text: str, file: str, where: KeyPath, error: SekishoError) -> SettingFault:
    """Return a fault of the value at ``where`` in ``text``; for rules beyond types."""
    return _fault(file, line_of(text, where), _dotted(where), error)


def _fault(file: str, line: int, key: str, error: SekishoError) -> SettingFault:
    return SettingFault(file, line, key, error.code, error.params)


def table_faults(
    entry: Mapping[str, Any], at: KeyPath, key: str, kind: type[T], made: Callable[[T], object]
) -> Faults:
    """Find what keeps the table ``key`` of ``entry``, if it is there, from being ``made``."""
    try:
        if (given := entry.get(key)) is not None:
            made(msgspec.convert(given, kind))
    except msgspec.ValidationError:
        return  # told already, with the key
    except UsageError as error:
        yield (*at, key), error


def read_text(path: Path) -> str:
    """Return the text of a configuration file, whatever editor wrote it; raise ConfigError."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(MAX_LENGTH + 1)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise ConfigError("config.unreadable", file=str(path), why=why) from error
    except UnicodeDecodeError as error:
        raise ConfigError("config.encoding", file=str(path)) from error
    if len(text) > MAX_LENGTH:
        raise ConfigError("config.unreadable", file=str(path), why=os.strerror(errno.EFBIG))
    return text


def load(path: Path, kind: type[T], *, environ: Mapping[str, str] | None = None) -> T:
    """Return the settings in ``path``, overridden by ``environ``; raise ConfigError."""
    return parse(read_text(path), path.name, kind, environ=environ)


def parse(text: str, file: str, kind: type[T], *, environ: Mapping[str, str] | None = None) -> T:
    """Return the settings written as ``text``; raise ConfigError with every fault."""
    document, faults = examine(text, file, kind, environ=environ)
    if faults:
        raise invalid(faults)
    return msgspec.convert(document, kind)


def examine(
    text: str, file: str, kind: type[T], *, environ: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], list[SettingFault]]:
    """Return what ``text`` says, unconverted, and every place where it is no ``kind``.

    Raise ConfigError for a text that is no TOML.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = _TOML_LINE.search(str(error))
        line = int(place[1]) if place else max(1, len(text.splitlines()))  # "at end of document"
        said = UsageError("setting.syntax", why=str(error))
        raise invalid([_fault(file, line, "TOML", said)]) from error
    faults = [fault_at(text, file, where, error) for where, error in _faults(document, kind, ())]
    faults += _override(document, kind, environ or {})
    return document, faults


def _override(
    document: dict[str, Any], kind: type[msgspec.Struct], environ: Mapping[str, str]
) -> list[SettingFault]:
    """Put what the environment says into ``document``; return what is wrong with it.

    A section that ``kind`` does not have belongs to another program's settings and is left alone.
    """
    sections = {f.encode_name: f.type for f in msgspec.structs.fields(kind)}
    faults = []
    for name, text in environ.items():
        section, _, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
        table = _struct_in(sections.get(section))
        if not name.startswith(ENVIRONMENT_PREFIX) or not key or table is None:
            continue
        types = {f.encode_name: f.type for f in msgspec.structs.fields(table)}
        if key not in types:
            unknown = UsageError("setting.unknown", name=key)
            faults.append(_fault(name, 0, f"{section}.{key}", unknown))
            continue
        try:
            document.setdefault(section, {})[key] = _from_text(text, types[key])
        except msgspec.ValidationError as error:
            below, wrong = complaint(error, types[key])
            faults.append(_fault(name, 0, f"{section}.{key}{below}", wrong))
    return faults


def _from_text(text: str, kind: Any) -> Any:
    """Return ``text`` as TOML would give it: a text or number needs no quotes, a list brackets."""
    try:
        return msgspec.to_builtins(msgspec.convert(text, kind, strict=False))
    except msgspec.ValidationError:
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        msgspec.convert(value, kind)
        return value


def _faults(value: dict[str, Any], kind: type[msgspec.Struct], at: KeyPath) -> Faults:
    """Check one table at a time, so that every table can report its own fault."""
    fields = {f.encode_name: f for f in msgspec.structs.fields(kind)}
    for key in value.keys() - fields.keys():
        yield (*at, key), UsageError("setting.unknown", name=key)
    for name, field in fields.items():
        if name not in value:
            if field.required:
                yield (*at, name), UsageError("setting.lacking", name=name)
            continue
        yield from _faults_of_field(value[name], field.type, (*at, name))


def _faults_of_field(value: Any, kind: Any, at: KeyPath) -> Faults:
    for container, table in _shapes(kind):
        items = _items(container, value)
        if items is not None:
            if container is dict:
                yield from _key_faults(value, kind, at)
            for step, item in items:
                yield from _faults(item, table, (*at, *step))
            return
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        below, wrong = complaint(error, kind)
        yield (*at, *_steps(below)), wrong


def _key_faults(tables: dict[str, Any], kind: Any, at: KeyPath) -> Faults:
    """Check what the tables of a table are called."""
    union = kind.__args__ if isinstance(kind, UnionType) else (kind,)
    form = next(get_args(each)[0] for each in union if get_origin(each) is dict)
    for name in tables:
        try:
            msgspec.convert(name, form)
        except msgspec.ValidationError as error:
            yield (*at, name), complaint(error, form)[1]


def _items(container: Any, value: Any) -> list[tuple[KeyPath, dict[str, Any]]] | None:
    """Return the tables in ``value``, each with the step that leads to it.

    None: it has another form than ``container`` promises, and converting it will say so.
    """
    if container is None:
        return [((), value)] if isinstance(value, dict) else None
    if not isinstance(value, container):
        return None
    steps: Iterable[tuple[str | int, Any]] = (
        value.items() if container is dict else enumerate(value)
    )
    items: list[tuple[KeyPath, Any]] = [((step,), item) for step, item in steps]
    return items if all(isinstance(item, dict) for _, item in items) else None


def _shapes(kind: Any) -> list[tuple[Any, type[msgspec.Struct]]]:
    """Return the tables that a field may hold: itself, in a list, or by name in a table.

    A union of several tables is told apart by a tag and checked as a whole.
    """
    union = kind.__args__ if isinstance(kind, UnionType) else (kind,)
    found = []
    for candidate in union:
        origin = get_origin(candidate)
        inner = get_args(candidate)[-1] if origin in (list, dict) else candidate
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            found.append((origin, inner))
    return found if len(found) == 1 else []


def _struct_in(kind: Any) -> type[msgspec.Struct] | None:
    return next((table for container, table in _shapes(kind) if container is None), None)


def _steps(below: str) -> KeyPath:
    """Return the path that msgspec writes as ``[0].path``; a key of a table it does not name."""
    steps = (part[1] or part[0] for part in _STEP.finditer(below))
    return tuple(int(step) if step.isdigit() else step for step in steps)


def _dotted(path: KeyPath) -> str:
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")
