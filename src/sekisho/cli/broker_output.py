"""How the operator's commands print: aligned columns for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import click
import msgspec

from sekisho.cli.output import aligned, note, result_json, safe_lines
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


def note_orphaned(session: Session, jobs: Sequence[str]) -> None:
    """Say of each job that nobody may tell of any more what is to be done about it."""
    for job in jobs:
        note(session, session.say("broker_orphaned", job=job))


def show_table(session: Session, rows: Sequence[Any], columns: Sequence[str]) -> None:
    """Print ``rows``: all of them as one JSON list, or the ``columns`` of each on a line."""
    if session.json:
        result_json(session, list(rows))
        return
    head = [_label(session, name) for name in columns]
    cells = [[_cell(session, name, row.get(name)) for name in columns] for row in map(_plain, rows)]
    for line in aligned([head, *cells]):
        show(line)


def show_record(session: Session, record: Any) -> None:
    """Print one thing: as JSON, or a line for each of its values, a table for a list of things."""
    if session.json:
        result_json(session, record)
        return
    for name, value in _plain(record).items():
        rows = _rows(session, value)
        show(f"{_label(session, name)}:" if rows else _line(session, name, value))
        for line in aligned(rows):
            show(f"  {line}")


def _plain(record: Any) -> Any:
    return msgspec.to_builtins(record, builtin_types=(datetime,))


def _rows(session: Session, value: object) -> list[list[str]]:
    """Return a row for each thing in the list ``value``; nothing if it is no list of things."""
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        return []
    return [[_cell(session, name, cell) for name, cell in thing.items()] for thing in value]


def _line(session: Session, name: str, value: object) -> str:
    return f"{_label(session, name)}: {_cell(session, name, value)}"


def _label(session: Session, name: str) -> str:
    return text("column", name, session.lang)


def _cell(session: Session, name: str, value: object) -> str:
    """Return the ``value`` of ``name`` in words."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return session.say("yes" if value else "no")
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, list):
        return _SEPARATOR.join(_cell(session, name, item) for item in value) or "-"
    if isinstance(value, dict):
        pairs = (f"{_key(session, name, k)}={_cell(session, k, v)}" for k, v in value.items())
        return _SEPARATOR.join(pairs) or "-"
    return text("state", str(value), session.lang) if name == "state" else str(value)


def _key(session: Session, name: str, key: str) -> str:
    """Return the label of one of the values that ``name`` holds: a site's name is its own."""
    if name in _BY_SITE:
        return key
    return text("state" if name == "jobs" else "column", key, session.lang)
