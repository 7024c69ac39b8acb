"""`sekisho broker site`: which sites there are, whom they serve, and what is switched off."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import click

from sekisho.broker.ports import Site
from sekisho.cli.broker_home import config_option, open_desk
from sekisho.cli.broker_output import note_orphaned, show_made, show_record, show_table
from sekisho.cli.session import Session
from sekisho.cli.words import Group, json_option
from sekisho.domain import ids
from sekisho.domain.access import Role

_NAME = click.argument("name", metavar="SITE")
_USERS = click.option("--user", "users", multiple=True, required=True, metavar="USER")
_COMMAND = click.option("--command", metavar="COMMAND")


@click.group(cls=Group)
def site() -> None:
    """Add sites and take them out of service."""


@site.command("add")
@_NAME
@_USERS
@click.option("--hours", metavar="N", default=24, show_default=True, type=click.IntRange(1, 168))
@config_option
@json_option
@click.pass_obj
def add_site(session: Session, name: str, users: tuple[str, ...], hours: int, config: Path) -> None:
    """Add SITE and print a one-time invitation for `sekisho site join`."""
    with open_desk(config) as desk:
        desk.sites.add(name, frozenset(users))
        _, secret = desk.tokens.invite(name, lasts=timedelta(hours=hours))
    show_made(session, secret.reveal(), {"site": name, "invitation": secret.reveal()})


@site.command("users")
@_NAME
@_USERS
@config_option
@json_option
@click.pass_obj
def site_users(session: Session, name: str, users: tuple[str, ...], config: Path) -> None:
    """Replace the submitters that the broker lets through to SITE."""
    with open_desk(config) as desk:
        made = desk.sites.serve(name, frozenset(users))
    show_record(session, _switches(made))


@site.command("list")
@config_option
@json_option
@click.pass_obj
def list_sites(session: Session, config: Path) -> None:
    """List the sites, with when their agent was last seen."""
    with open_desk(config) as desk:
        uses = desk.ports.store.mint.uses()
        rows = [
            {
                "id": s.id,
                "connected": desk.sites.connected(s),
                "disabled": s.disabled,
                "disabled_commands": sorted(s.disabled_commands),
                "submitters": sorted(s.submitters),
                "last_seen_at": s.last_seen_at,
                "agent_version": s.agent_version,
                "unguarded": desk.policy.value.mint.unguarded(s.id),
                "mint_uses": [use for use in uses if use.site == s.id],
                "mint_last_at": max((u.last_at for u in uses if u.site == s.id), default=None),
            }
            for s in desk.ports.store.directory.sites()
        ]
    shown = ("id", "connected", "disabled", "unguarded", "last_seen_at", "mint_last_at")
    show_table(session, rows, (*shown, "submitters"))


def _switches(site: Site) -> dict[str, object]:
    return {
        "site": site.id,
        "submitters": sorted(site.submitters),
        "disabled": site.disabled,
        "disabled_commands": sorted(site.disabled_commands),
    }


def _switch(
    session: Session, name: str, config: Path, command: str | None, *, disabled: bool
) -> None:
    with open_desk(config) as desk:
        made = desk.sites.switch(ids.check_site(name), disabled=disabled, command=command)
    show_record(session, _switches(made))


@site.command("disable")
@_NAME
@_COMMAND
@config_option
@json_option
@click.pass_obj
def disable_site(session: Session, name: str, config: Path, command: str | None) -> None:
    """Offer SITE nothing more, at once. What it runs goes on."""
    _switch(session, name, config, command, disabled=True)


@site.command("enable")
@_NAME
@_COMMAND
@config_option
@json_option
@click.pass_obj
def enable_site(session: Session, name: str, config: Path, command: str | None) -> None:
    """Put SITE, or a command of it, back into service."""
    _switch(session, name, config, command, disabled=False)


@site.command("rotate")
@_NAME
@config_option
@json_option
@click.pass_obj
def rotate_site(session: Session, name: str, config: Path) -> None:
    """Shut the site's present agent out and print a new invitation."""
    with open_desk(config) as desk:
        _, secret = desk.tokens.rotate(ids.check_site(name))
        shut_out = [t for t in desk.tokens.tokens(role=Role.SITE) if t.name == name]
        left = desk.mint_work.orphaned(shut_out)
    told = {"site": name, "invitation": secret.reveal(), "orphaned": left}
    show_made(session, secret.reveal(), told)
    note_orphaned(session, left)
