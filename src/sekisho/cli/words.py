"""Click's commands with help texts from the catalogue, in the user's language.

A command's help is the entry of its name in the table `help`, an option's that of
`<command>.<option>`, or of `any.<option>` where several commands share it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pkgutil import resolve_name
from typing import Any

import click
from click.shell_completion import CompletionItem

from sekisho.cli import exit as statuses
from sekisho.cli.examples import EXAMPLES
from sekisho.cli.help_text import Context
from sekisho.cli.session import Session
from sekisho.domain.errors import UsageError
from sekisho.i18n.catalogue import catalogue


def session_of(ctx: click.Context) -> Session:
    """Return the session of this call."""
    found = ctx.find_object(Session)
    return found if found is not None else Session()


class Command(click.Command):
    """A command whose words are in the catalogue."""

    context_class = Context

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        localise(self, ctx)
        super().format_help(ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if (examples := EXAMPLES.get(_key(ctx))) is not None:
            with formatter.section(session_of(ctx).say("examples")):
                for line in examples:  # to be copied: never broken
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")
        super().format_epilog(ctx, formatter)


class JobCommand(Command):
    """A command that ends as the job does; its help tells the exit statuses."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        session = session_of(ctx)
        with formatter.section(session.say("exit_statuses")):
            formatter.write_dl(statuses.table(session.lang))


class Group(click.Group):
    """A group of such commands."""

    command_class = Command
    context_class = Context

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        localise(self, ctx)
        for name, command in self.commands.items():
            key = f"{_key(ctx)}.{name}"
            if (words := _words(ctx).get(key)) is not None:
                command.short_help = words.strip().split("\n")[0]
        super().format_help(ctx, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Name the commands without importing any: one may lack what it needs here."""
        words, above = _words(ctx), "" if ctx.parent is None else f"{_key(ctx)}."
        found = [
            CompletionItem(name, help=words.get(above + name, "").strip().split("\n")[0])
            for name in self.list_commands(ctx)
            if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]


class Lazy(Group):
    """A group whose commands are each imported when they are called, and not before.

    ``places`` has them in the order of the help: a name, and `MODULE:ATTRIBUTE`.
    """

    def __init__(self, *args: Any, places: Mapping[str, str], **rest: Any) -> None:
        super().__init__(*args, **rest)
        self.places = places

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return list(self.places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; raise UsageError when it needs what is not installed."""
        if cmd_name not in self.places:
            return None
        try:
            found: click.Command = resolve_name(self.places[cmd_name])
        except ModuleNotFoundError as error:
            command = f"{_key(ctx)}.{cmd_name}" if ctx.parent else cmd_name
            name = command.replace(".", " ")
            raise UsageError("extra.missing", command=name, module=error.name) from error
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        words, above = _words(ctx), "" if ctx.parent is None else f"{_key(ctx)}."
        rows = [(name, words[above + name].strip().split("\n")[0]) for name in self.places]
        with formatter.section(session_of(ctx).say("commands")):
            formatter.write_dl(rows)


def localise(command: click.Command, ctx: click.Context) -> None:
    """Give ``command`` and its options their help texts."""
    words = _words(ctx)
    key = _key(ctx)
    command.help = words.get(key, command.help)
    for option in command.params:
        if isinstance(option, click.Option):
            shared = words.get(f"any.{option.name}", option.help)
            option.help = words.get(f"{key}.{option.name}", shared)
    if (asks := command.get_help_option(ctx)) is not None:
        asks.help = words["any.help"]


def _words(ctx: click.Context) -> dict[str, Any]:
    words: dict[str, Any] = catalogue(session_of(ctx).lang)["help"]
    return words


def _key(ctx: click.Context) -> str:
    """Return the names of the commands that lead here, without that of the program."""
    names: list[str] = []
    here: click.Context | None = ctx
    while here is not None and here.parent is not None:
        names.insert(0, here.info_name or "")
        here = here.parent
    return ".".join(names) or "sekisho"


def _set_json(ctx: click.Context, _option: click.Parameter, value: bool) -> None:  # noqa: FBT001
    session_of(ctx).json = value


def _set_quiet(ctx: click.Context, _option: click.Parameter, value: bool) -> None:  # noqa: FBT001
    session_of(ctx).quiet = value


#: Options that mean the same wherever they occur. Eager: errors of other options obey them too.
json_option = click.option(
    "--json", is_flag=True, is_eager=True, expose_value=False, callback=_set_json
)
quiet_option = click.option(
    "--quiet", "-q", is_flag=True, is_eager=True, expose_value=False, callback=_set_quiet
)
