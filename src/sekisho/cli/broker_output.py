"""How the operator's commands print: aligned columns for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import msgspec

from sekisho.cli.output import safe


def show(text: str) -> None:
    """Print one line."""
    click.echo(safe(text))


def show_table(rows: Sequence[Any], columns: Sequence[str], *, as_json: bool) -> None:
    """Print ``rows``: all of them as one JSON list, or the ``columns`` of each on a line."""
    plain = [msgspec.to_builtins(row) for row in rows]
    if as_json:
        click.echo(msgspec.json.encode(plain).decode())
        return
    cells = [[name.upper() for name in columns]]
    cells += [[_cell(row.get(name)) for name in columns] for row in plain]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        show("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip())


def show_record(record: Any, *, as_json: bool) -> None:
    """Print one thing: as JSON, or a line for each of its values."""
    plain = msgspec.to_builtins(record)
    if as_json:
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
