"""`sekisho broker import-ini`: what an old MInt broker's settings become here."""

from __future__ import annotations

import re
from pathlib import Path

import click

from sekisho.adapters.durable import write_file
from sekisho.adapters.logging_setup import set_up_logging
from sekisho.cli.broker_output import show
from sekisho.compose import broker as compose
from sekisho.config.broker import BrokerSettings, MintSettings, load_broker
from sekisho.config.load import parse, read_text
from sekisho.config.mint_ini import OldSettings, mint_tables, read_ini


@click.command("import-ini")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--user", "users", multiple=True, required=True, help="A submitter of its sites.")
@click.option("--write", is_flag=True, help="Add the sites and the settings; else only show them.")
@click.option(
    "-c",
    "--config",
    envvar="SEKISHO_BROKER_CONFIG",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The broker's settings file, broker.toml (or SEKISHO_BROKER_CONFIG).",
)
def import_ini(file: Path, users: tuple[str, ...], config: Path, *, write: bool) -> None:
    """Turn an old MInt broker's FILE into sites, commands and settings.

    Every site is taken to have an old agent, until you say otherwise. What has no counterpart is
    listed on stderr.
    """
    set_up_logging("error")
    old = read_ini(read_text(file), file.name)
    tables = mint_tables(old)
    show_lines(tables)
    if write:
        _write(old, tables, users, config)
    for what in old.unmatched:
        click.echo(f"no counterpart: {what}", err=True)


def show_lines(text: str) -> None:
    for line in text.splitlines():
        show(line)


def _write(old: OldSettings, tables: str, users: tuple[str, ...], config: Path) -> None:
    files = load_broker(config)
    if files.settings.mint == MintSettings():
        before = re.sub(r"(?m)^\[mint\]", "# [mint]", read_text(config))
        text = f"{before.rstrip()}\n\n{tables}"
        parse(text, config.name, BrokerSettings)  # before it is written
        write_file(config, text.encode())
        files = load_broker(config)
    else:
        click.echo("not written: the settings have a [mint] table already", err=True)
    with compose.desk(files) as desk:
        known = {site.id for site in desk.ports.store.directory.sites()}
        for name in old.sites:
            if name not in known:
                desk.sites.add(name, frozenset(users))
                click.echo(f"added: {name}", err=True)
