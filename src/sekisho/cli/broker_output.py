"""How the operator's commands print: aligned columns for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click
import msgspec

from sekisho.cli.output import safe_lines
from sekisho.cli.session import Session


def show(text: str, *, err: bool = False) -> None:
    """Print text of our own making; what it names cannot steer the terminal."""
    click.echo(safe_lines(text), err=err)


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
    cells = [[name.upper() for name in columns]]
    cells += [[_cell(row.get(name)) for name in columns] for row in plain]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        show("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip())


def show_record(session: Session, record: Any) -> None:
    """Print one thing: as JSON, or a line for each of its values."""
    plain = msgspec.to_builtins(record)
    if session.json:
        click.echo(msgspec.json.encode(plain).decode())
        return
    for name, value in plain.items():
        show(f"{name}: {_cell(value)}")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(_cell(item) for item in value) or "-"
    if isinstance(value, dict):
        return " ".join(f"{name}={_cell(item)}" for name, item in value.items()) or "-"
    return str(value)
