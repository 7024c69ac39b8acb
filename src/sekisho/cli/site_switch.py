"""Pausing, draining, and switching a command off: files in the state directory, and a signal.

Only whoever may write the site's directory can do it; nothing listens. The signal goes to the
process that holds the state's lock, and to no other.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import click

from sekisho.adapters.desires_directory import disabled_commands
from sekisho.adapters.durable import make_directory, sync_directory, write_file
from sekisho.adapters.journal_directory import DirectoryJournal
from sekisho.cli import output
from sekisho.cli.session import Session
from sekisho.cli.site_home import home_option, open_site
from sekisho.cli.words import Command
from sekisho.config.manifest import load_manifest
from sekisho.config.site import SiteFiles
from sekisho.domain.errors import NotFound

_NAME = click.argument("command", metavar="COMMAND")


@click.command(cls=Command)
@home_option
@click.pass_obj
def pause(session: Session, home: Path) -> None:
    """Take no new jobs until `resume`. What runs goes on. Holds across restarts."""
    files = open_site(home)
    make_directory(files.state)
    write_file(files.paused, b"")
    _nudge(files)
    output.result(session, session.say("site_paused"))


@click.command(cls=Command)
@home_option
@click.pass_obj
def resume(session: Session, home: Path) -> None:
    """Take new jobs again."""
    files = open_site(home)
    if files.paused.exists():
        files.paused.unlink(missing_ok=True)
        sync_directory(files.state)
    _nudge(files)
    output.result(session, session.say("site_resumed"))


@click.command(cls=Command)
@home_option
@click.pass_obj
def drain(session: Session, home: Path) -> None:
    """Let the agent finish what it has in hand, and end."""
    files = open_site(home)
    if not _signal(files, signal.SIGTERM):
        raise NotFound("agent.not_running", directory=str(files.home))
    output.result(session, session.say("site_draining"))


@click.command(cls=Command)
@_NAME
@home_option
@click.pass_obj
def disable(session: Session, command: str, home: Path) -> None:
    """Switch COMMAND off: no new job of it is taken. What runs goes on."""
    files = open_site(home)
    if command not in load_manifest(files.manifest).commands:
        raise NotFound("site.no_such_command", command=command, file=str(files.manifest))
    _switch(files, disabled_commands(files.disabled) | {command})
    output.result(session, session.say("site_command_off", command=command))


@click.command(cls=Command)
@_NAME
@home_option
@click.pass_obj
def enable(session: Session, command: str, home: Path) -> None:
    """Switch COMMAND on again."""
    files = open_site(home)
    off = disabled_commands(files.disabled)
    if command not in off | load_manifest(files.manifest).commands.keys():
        raise NotFound("site.no_such_command", command=command, file=str(files.manifest))
    _switch(files, off - {command})
    output.result(session, session.say("site_command_on", command=command))


def _switch(files: SiteFiles, off: frozenset[str]) -> None:
    make_directory(files.state)
    write_file(files.disabled, "".join(f"{name}\n" for name in sorted(off)).encode())
    _nudge(files)


def _nudge(files: SiteFiles) -> None:
    """Let an agent that waits look again; when none runs, the file is enough."""
    _signal(files, signal.SIGUSR1)


def _signal(files: SiteFiles, number: signal.Signals) -> bool:
    """Send a signal to the agent; say whether there is one.

    The process is held by a descriptor before the lock is looked at again, so that a number that
    was given to another process meanwhile is never signalled.
    """
    journal = DirectoryJournal(files.state)
    owner = journal.owner()
    if owner is None:
        return False
    try:
        process = os.pidfd_open(owner)
    except ProcessLookupError:
        return False
    try:
        if journal.owner() != owner:
            return False
        signal.pidfd_send_signal(process, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(process)
    return True
