"""The program `sekisho`: finds a command by its name, and turns an error into a status.

A command's module is imported when the command is called: starting must not cost what is not used.
"""

from __future__ import annotations

import importlib
import sys
from typing import Final

import click

from sekisho import __version__
from sekisho.domain.errors import SekishoError

COMMANDS: Final = {
    "agent": "sekisho.cli.agent",
    "broker": "sekisho.cli.broker",
    "site": "sekisho.cli.site",
}


class Lazy(click.Group):
    """A group whose commands are found in modules named after them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 click's signature
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = getattr(importlib.import_module(COMMANDS[cmd_name]), cmd_name)
        return found


@click.command("sekisho", cls=Lazy)
@click.version_option(__version__)
def root() -> None:
    """Run one step of a workflow on a computer that you may not reach."""


def main() -> None:
    """Run the program; end with the status of what happened."""
    try:
        root(prog_name="sekisho")
    except SekishoError as error:
        click.echo(f"error[{error.code}]: {error.params or ''}", err=True)
        sys.exit(error.exit_status)
