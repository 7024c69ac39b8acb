"""`sekisho completion SHELL`: what to put into a shell's start-up file."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import get_completion_class

from sekisho.cli import output
from sekisho.cli.session import Session
from sekisho.cli.words import Command
from sekisho.domain.errors import UsageError

#: click's script for fish ends what is said of a command at its first comma.
_EVERY_COMMA: Final = 'string split "," '
_FIRST_COMMA: Final = 'string split --max 1 "," '


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell."""
    kind = get_completion_class(shell)
    if kind is None:
        raise UsageError("usage.arguments", why=shell)
    source = kind(ctx.find_root().command, {}, "sekisho", "_SEKISHO_COMPLETE").source()
    source = source.replace(_EVERY_COMMA, _FIRST_COMMA)
    session = ctx.find_object(Session)
    for line in source.splitlines():
        output.result(session or Session(), line)
