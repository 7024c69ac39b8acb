"""`sekisho broker import-ini`: what an old MInt broker's settings become here."""

from __future__ import annotations

import re
from pathlib import Path

import click

from sekisho.adapters.durable import write_file
from sekisho.adapters.logging_setup import silence
from sekisho.broker.desk import Desk
from sekisho.cli import output
from sekisho.cli.broker_home import config_option
from sekisho.cli.broker_output import show, show_record
from sekisho.cli.session import Session
from sekisho.cli.words import Command, json_option
from sekisho.compose import broker as compose
from sekisho.config.broker import BrokerSettings, MintSettings, load_broker
from sekisho.config.load import parse, read_text
from sekisho.config.mint_ini import OldSettings, mint_tables, read_ini


@click.command("import-ini", cls=Command)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--user", "users", multiple=True, required=True, metavar="USER")
@click.option("--write", is_flag=True)
@config_option
@json_option
@click.pass_obj
def import_ini(
    session: Session, file: Path, users: tuple[str, ...], config: Path, *, write: bool
) -> None:
    """Turn an old MInt broker's FILE into sites, commands and settings.

    Every site is taken to have an old agent, until you say otherwise. What has no counterpart is
    listed on stderr.
    """
    silence()
    old = read_ini(read_text(file), file.name)
    tables = mint_tables(old)
    if not session.json:
        for line in tables.splitlines():
            show(line)
    written, added = _write(session, old, tables, users, config) if write else (False, [])
    kept = _kept(old, config)
    for key, there in kept.items():
        output.note(session, session.say("broker_kept", name=key, there=there))
    for what in old.unmatched:
        output.note(session, session.say("broker_no_counterpart", what=what))
    if session.json:
        facts = {"written": written, "added": added, "kept": kept}
        facts |= {"no_counterpart": list(old.unmatched)}
        show_record(session, {"settings": tables, **facts})


def last_uses(desk: Desk) -> dict[str, str]:
    """Return when the old paths were last used for each site."""
    found = sorted(desk.ports.store.mint.uses(), key=lambda use: use.last_at)
    return {use.site: use.last_at.isoformat(timespec="seconds") for use in found}


def _kept(old: OldSettings, config: Path) -> dict[str, str]:
    """Return what the old file says of where to listen and this broker says otherwise.

    It is not taken over: the old server may go on beside this one.
    """
    http = load_broker(config).settings.http
    here = {"host": http.host, "port": str(http.port)}
    return {f"http.{key}": there for key, there in old.server.items() if there != here[key]}


def _write(
    session: Session, old: OldSettings, tables: str, users: tuple[str, ...], config: Path
) -> tuple[bool, list[str]]:
    """Add settings and sites; return whether the settings were added, and which sites."""
    files = load_broker(config)
    written = files.settings.mint == MintSettings()
    if written:
        before = re.sub(r"(?m)^\[mint\]", "# [mint]", read_text(config))
        text = f"{before.rstrip()}\n\n{tables}"
        parse(text, config.name, BrokerSettings)  # before it is written
        write_file(config, text.encode())
        output.note(session, session.say("broker_mint_written", file=config))
        files = load_broker(config)
    else:
        output.note(session, session.say("broker_has_mint"))
    added = []
    with compose.desk(files) as desk:
        known = {site.id for site in desk.ports.store.directory.sites()}
        for name in old.sites:
            if name not in known:
                desk.sites.add(name, frozenset(users))
                added.append(name)
                output.note(session, session.say("broker_site_added", site=name))
    return written, added
