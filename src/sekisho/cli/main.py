"""`sekisho`: the entry, the global options, and the place where errors become words and a status.

A command's module is imported when the command is called, and not before: starting is quick.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn, TextIO

import click
from click.exceptions import NoArgsIsHelpError

from sekisho import __version__
from sekisho.cli import core_dump, output
from sekisho.cli import exit as statuses
from sekisho.cli.click_words import speak
from sekisho.cli.interrupt import Interrupted, hear_children
from sekisho.cli.session import Session
from sekisho.cli.words import Lazy, session_of
from sekisho.domain.errors import Conflict, SekishoError, UsageError
from sekisho.i18n.catalogue import LANGUAGES

#: Every command, in the order of the help, with its place.
COMMANDS: Final = {
    "run": "sekisho.cli.run:run",
    "submit": "sekisho.cli.run:submit",
    "wait": "sekisho.cli.jobs:wait",
    "fetch": "sekisho.cli.jobs:fetch",
    "cancel": "sekisho.cli.jobs:cancel",
    "jobs": "sekisho.cli.jobs:jobs",
    "show": "sekisho.cli.jobs:show",
    "sites": "sekisho.cli.jobs:sites",
    "client": "sekisho.cli.client:client",
    "site": "sekisho.cli.site:site",
    "agent": "sekisho.cli.agent:agent",
    "broker": "sekisho.cli.broker:broker",
    "completion": "sekisho.cli.completion:completion",
}


#: What we start without a path: the system's own.
_PROGRAMS: Final = frozenset({"ssh", "rsync", "ssh-keygen"})


def _set_lang(ctx: click.Context, _option: click.Parameter, value: str | None) -> None:
    if value is not None:
        session_of(ctx).lang = value
        speak(value)


@click.group(
    name="sekisho",
    cls=Lazy,
    places=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--lang",
    type=click.Choice(LANGUAGES),
    is_eager=True,
    expose_value=False,
    callback=_set_lang,
)
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--debug", is_flag=True)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_obj
def cli(session: Session, config: Path | None, debug: bool) -> None:  # noqa: FBT001
    """Run one step of a workflow on a computer you may not reach."""
    session.config = config
    session.debug = debug


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status."""
    session = Session()
    speak(session.lang)
    try:
        status = cli.main(
            args=None if argv is None else list(argv),
            prog_name="sekisho",
            standalone_mode=False,
            obj=session,
        )
    except click.ClickException as error:
        _click_error(session, error)
        return statuses.USAGE
    except Interrupted as stop:
        return statuses.SIGNAL_BASE + stop.signum
    except click.Abort:
        return statuses.SIGNAL_BASE + 2
    except (SekishoError, OSError, UnicodeEncodeError) as error:
        if session.debug or isinstance(error, BrokenPipeError):
            raise
        told = error if isinstance(error, SekishoError) else _refused(error)
        _tell(session, told)
        return told.exit_status
    return status if isinstance(status, int) else statuses.DONE


def _click_error(session: Session, error: click.ClickException) -> None:
    context = getattr(error, "ctx", None)
    if isinstance(error, NoArgsIsHelpError):  # a group's name alone: its help is the answer
        output.note(session, error.format_message())
        return
    if context is not None and not session.json:
        output.note(session, context.get_usage())
    why = " ".join(error.format_message().split())  # click lists choices on lines of their own
    output.error(session, UsageError("usage.arguments", why=why))


def _tell(session: Session, error: SekishoError) -> None:
    """Print ``error``; on stderr when there is no room for it on stdout, where JSON goes."""
    try:
        output.error(session, error)
    except BrokenPipeError:
        raise
    except OSError:
        session.json = False
        output.error(session, error)


def _refused(error: OSError | UnicodeEncodeError) -> SekishoError:
    """Return what the system refused, as an error of ours: a path that was typed, a full disk."""
    if isinstance(error, UnicodeEncodeError):
        return Conflict("system.encoding", encoding=error.encoding)
    place = "" if error.filename is None else os.fsdecode(error.filename)
    if isinstance(error, FileNotFoundError) and place in _PROGRAMS:
        return Conflict("system.no_program", program=place)
    return Conflict("system.refused", why=error.strerror or str(error), file=place)


def main() -> NoReturn:
    """Run the command line of this process."""
    core_dump.forbid()
    _have_home()
    _have_streams()
    hear_children()
    try:
        status = run()
        sys.stdout.flush()
    except SystemExit:  # click's way to end when nobody reads stdout any more
        if isinstance(sys.stdout, io.TextIOBase):
            raise
        status = statuses.DONE
    except KeyboardInterrupt:
        status = statuses.SIGNAL_BASE + 2
    except BrokenPipeError:  # the reader of our output is gone: nobody is left to be told
        _give_up(sys.stdout)
        status = statuses.DONE
    except OSError:  # there is no room for our output, as was told on stderr
        _give_up(sys.stdout)
        status = Conflict.exit_status
    try:
        sys.stderr.flush()
    except OSError:  # of a terminal that was closed: its last words would become the status
        _give_up(sys.stderr)
    sys.exit(status)


def _have_home() -> None:
    """Give an account that has no home, as in some containers, the root for one."""
    if os.path.expanduser("~") == "~":  # noqa: PTH111 (the other raises)
        os.environ["HOME"] = "/"


def _have_streams() -> None:
    """Let nothing that is opened later take the place of a stream that the caller closed.

    What a terminal's encoding does not know is shown by its number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _give_up(stream: TextIO) -> None:
    """Let what is left in ``stream``, and all that follows, go nowhere."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
