"""Pausing, draining, and switching a command off: files in the state directory, and a signal.

Only whoever may write the site's directory can do it; nothing listens. The signal goes to the
process that holds the state's lock, and to no other.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from sekisho.adapters.durable import make_directory, sync_directory, write_file
from sekisho.adapters.journal_directory import DirectoryJournal
from sekisho.cli import exit as statuses
from sekisho.cli import output
from sekisho.cli.session import Session
from sekisho.cli.site_home import home_option, open_site
from sekisho.cli.words import Command, json_option
from sekisho.config.manifest import load_manifest
from sekisho.config.site import SiteFiles, disabled_commands
from sekisho.domain.errors import NotFound

_NAME = click.argument("command", metavar="COMMAND")
#: Between two looks at what is still in hand.
_LOOK_MILLISECONDS: Final = 1000


@click.command(cls=Command)
@home_option
@json_option
@click.pass_obj
def pause(session: Session, home: Path) -> None:
    """Take no new jobs until `resume`. What runs goes on. Holds across restarts."""
    files = open_site(home)
    make_directory(files.state)
    write_file(files.paused, b"")
    _nudge(files)
    _tell(session, "site_paused", paused=True)


@click.command(cls=Command)
@home_option
@json_option
@click.pass_obj
def resume(session: Session, home: Path) -> None:
    """Take new jobs again."""
    files = open_site(home)
    if files.paused.exists():
        files.paused.unlink(missing_ok=True)
        sync_directory(files.state)
    _nudge(files)
    _tell(session, "site_resumed", paused=False)


@click.command(cls=Command)
@home_option
@click.option("--no-wait", is_flag=True)
@json_option
@click.pass_obj
def drain(session: Session, *, home: Path, no_wait: bool) -> int:
    """Let the agent finish what it has in hand, and end; return when it has ended."""
    files = open_site(home)
    with _agent(files) as process:
        if process is None:
            raise NotFound("agent.not_running", directory=str(files.home))
        signal.pidfd_send_signal(process, signal.SIGTERM)
        if not no_wait:
            output.note(session, session.say("site_draining"))
            _see_out(session, files, process)
    left = _in_hand(files)
    if no_wait:
        _tell(session, "site_draining", ended=False, open=left)
        return statuses.DONE
    _tell(session, "site_left" if left else "site_drained", ended=True, open=left)
    return statuses.LATER if left else statuses.DONE


def _see_out(session: Session, files: SiteFiles, process: int) -> None:
    """Return when ``process`` has ended; tell meanwhile what it waits for."""
    ended = select.poll()
    ended.register(process, select.POLLIN)
    told: list[str] = []
    while True:
        if (left := _in_hand(files)) and left != told:
            told = left
            jobs = ", ".join(left)
            output.note(session, session.say("site_waits", count=len(left), jobs=jobs))
        if ended.poll(_LOOK_MILLISECONDS):
            return


def _in_hand(files: SiteFiles) -> list[str]:
    return [run.job for run in DirectoryJournal(files.state).runs() if not run.settled]


@click.command(cls=Command)
@_NAME
@home_option
@json_option
@click.pass_obj
def disable(session: Session, command: str, home: Path) -> None:
    """Switch COMMAND off: no new job of it is taken. What runs goes on."""
    files = open_site(home)
    if command not in load_manifest(files.manifest).commands:
        raise NotFound("site.no_such_command", command=command, file=str(files.manifest))
    _switch(files, disabled_commands(files.disabled) | {command})
    _tell(session, "site_command_off", command=command, disabled=True)


@click.command(cls=Command)
@_NAME
@home_option
@json_option
@click.pass_obj
def enable(session: Session, command: str, home: Path) -> None:
    """Switch COMMAND on again."""
    files = open_site(home)
    off = disabled_commands(files.disabled)
    if command not in off | load_manifest(files.manifest).commands.keys():
        raise NotFound("site.no_such_command", command=command, file=str(files.manifest))
    _switch(files, off - {command})
    _tell(session, "site_command_on", command=command, disabled=False)


def _switch(files: SiteFiles, off: frozenset[str]) -> None:
    make_directory(files.state)
    write_file(files.disabled, "".join(f"{name}\n" for name in sorted(off)).encode())
    _nudge(files)


def _tell(session: Session, key: str, **facts: Any) -> None:
    words = {k: ", ".join(v) if isinstance(v, list) else v for k, v in facts.items()}
    output.done(session, session.say(key, **words), facts)


def _nudge(files: SiteFiles) -> None:
    """Let an agent that waits look again; when none runs, the file is enough."""
    with _agent(files) as process:
        if process is not None:
            signal.pidfd_send_signal(process, signal.SIGUSR1)


@contextmanager
def _agent(files: SiteFiles) -> Iterator[int | None]:
    """Give a descriptor of the agent's process, or None; a process that ends meanwhile is none.

    The process is held by the descriptor before the lock is looked at again, so that a number that
    was given to another process meanwhile is never signalled.
    """
    journal = DirectoryJournal(files.state)
    owner = journal.owner()
    process = None if owner is None else _held(owner)
    try:
        yield process if process is not None and journal.owner() == owner else None
    except ProcessLookupError:  # it has ended since: what was wanted of it needs no telling
        return
    finally:
        if process is not None:
            os.close(process)


def _held(owner: int) -> int | None:
    try:
        return os.pidfd_open(owner)
    except ProcessLookupError:
        return None
