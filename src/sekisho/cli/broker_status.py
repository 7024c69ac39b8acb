"""`sekisho broker status|reload`: what concerns the broker that is serving, if any."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import click

from sekisho.cli.broker_home import config_option, open_desk
from sekisho.cli.broker_mint import last_uses
from sekisho.cli.broker_output import show_made, show_record
from sekisho.cli.session import Session
from sekisho.cli.words import Command, json_option
from sekisho.compose import broker as compose
from sekisho.config.broker import BrokerFiles, load_broker
from sekisho.domain.errors import NotFound
from sekisho.http.admin_calls import status as figures


@click.command(cls=Command)
@config_option
@json_option
@click.pass_obj
def reload(session: Session, config: Path) -> None:
    """Make the serving broker read its settings again. Faulty settings are told here."""
    files = load_broker(config)
    process = compose.serving_pid(files)
    os.kill(process, signal.SIGHUP)
    show_made(session, session.say("broker_reloads"), {"process": process})


@click.command(cls=Command)
@config_option
@json_option
@click.pass_obj
def status(session: Session, config: Path) -> None:
    """Show figures, and whether the broker is serving."""
    files = load_broker(config)
    with open_desk(config) as desk:
        seen = figures(desk, desk.ports.clock.now())
        connected = [s.id for s in desk.ports.store.directory.sites() if desk.sites.connected(s)]
        last = last_uses(desk)
    row = {
        "version": seen.version,
        "serving": _serving(files),
        "connected": connected,
        "jobs": seen.jobs,
        "stored_bytes": seen.stored_bytes,
        "free_bytes": seen.free_bytes,
        "unguarded": seen.unguarded,
        "mint_last_at": last,
    }
    show_record(session, row)


def _serving(files: BrokerFiles) -> bool:
    try:
        return compose.serving_pid(files) > 0
    except NotFound:
        return False
