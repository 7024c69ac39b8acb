"""How the operator's commands print: aligned columns for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import click
import msgspec

from sekisho.cli.output import aligned, safe_lines
from sekisho.cli.session import Session
from sekisho.i18n.catalogue import text

_SEPARATOR: Final = ", "
_BY_SITE: Final = frozenset({"mint_last_at"})


def show(line: str, *, err: bool = False) -> None:
    """Print text of our own making; what it names cannot steer the terminal."""
    click.echo(safe_lines(line), err=err)


def show_made(session: Session, line: str, facts: Mapping[str, Any]) -> None:
    """Print what a command did: ``line`` for people, ``facts`` for programs."""
    if session.json:
        show_record(session, facts)
    elif line:
        show(line)


def show_table(session: Session, rows: Sequence[Any], columns: Sequence[str]) -> None:
    """Print ``rows``: all of them as one JSON list, or the ``columns`` of each on a line."""
    plain = [msgspec.to_builtins(row) for row in rows]
    if session.json:
        click.echo(msgspec.json.encode(plain).decode())
        return
    head = [_label(session, name) for name in columns]
    cells = [[_cell(session, name, row.get(name)) for name in columns] for row in plain]
    for line in aligned([head, *cells]):
        show(line)


def show_record(session: Session, record: Any) -> None:
    """Print one thing: as JSON, or a line for each of its values."""
    plain = msgspec.to_builtins(record)
    if session.json:
        click.echo(msgspec.json.encode(plain).decode())
        return
    for name, value in plain.items():
        show(f"{_label(session, name)}: {_cell(session, name, value)}")


def _label(session: Session, name: str) -> str:
    return text("column", name, session.lang)


def _cell(session: Session, name: str, value: object) -> str:
    """Return the ``value`` of ``name`` in words."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return session.say("yes" if value else "no")
    if isinstance(value, list):
        between = "; " if value and isinstance(value[0], dict) else _SEPARATOR
        return between.join(_cell(session, name, item) for item in value) or "-"
    if isinstance(value, dict):
        pairs = (f"{_key(session, name, k)}={_cell(session, k, v)}" for k, v in value.items())
        return _SEPARATOR.join(pairs) or "-"
    return text("state", str(value), session.lang) if name == "state" else str(value)


def _key(session: Session, name: str, key: str) -> str:
    """Return the label of one of the values that ``name`` holds: a site's name is its own."""
    if name in _BY_SITE:
        return key
    return text("state" if name == "jobs" else "column", key, session.lang)
