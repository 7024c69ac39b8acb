"""`sekisho broker token`: credentials of people and programs. Sites make their own by joining."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import click

from sekisho.adapters.durable import write_file
from sekisho.cli.broker_home import config_option, open_desk
from sekisho.cli.broker_output import note_orphaned, show_made, show_table
from sekisho.cli.session import Session
from sekisho.cli.words import Group, json_option
from sekisho.domain.access import Role
from sekisho.domain.errors import Conflict, SekishoError

_ROLES = [role.value for role in Role if role not in (Role.SITE, Role.INVITATION)]


@click.group(cls=Group)
def token() -> None:
    """Make, list and revoke credentials."""


@token.command("create")
@click.option("--role", required=True, type=click.Choice(_ROLES))
@click.option("--user", required=True, metavar="USER")
@click.option("--days", metavar="N", type=click.FloatRange(0, min_open=True))
@click.option("--note", default="", metavar="TEXT")
@click.option("--to", type=click.Path(path_type=Path))
@click.option("--show", "shown", is_flag=True)
@config_option
@json_option
@click.pass_obj
def create_token(  # noqa: PLR0913 (one for each option)
    session: Session,
    *,
    config: Path,
    role: str,
    user: str,
    days: float | None,
    note: str,
    to: Path | None,
    shown: bool,
) -> None:
    """Make a credential. Its secret exists once: in the file, or where --show prints it."""
    file = to or Path(f"{user}.{role}.token")
    if not shown and file.exists():
        raise Conflict("token.file_exists", file=str(file))
    lasts = None if days is None else timedelta(days=days)
    with open_desk(config) as desk:
        made, secret = desk.tokens.create(Role(role), user, lasts=lasts, note=note)
    if shown:
        show_made(session, secret.reveal(), {"id": made.id, "secret": secret.reveal()})
    else:
        try:
            write_file(file, f"{secret.reveal()}\n".encode())
        except (OSError, SekishoError):  # nobody has it, so it must open nothing
            with open_desk(config) as desk:
                desk.tokens.revoke(made.id)
            raise
        show_made(session, f"{made.id} {file}", {"id": made.id, "file": str(file)})


@token.command("list")
@config_option
@json_option
@click.pass_obj
def list_tokens(session: Session, config: Path) -> None:
    """List credentials, never their secrets."""
    with open_desk(config) as desk:
        rows = [
            {
                "id": t.id,
                "role": t.role.value,
                "name": t.name,
                "created_at": t.created_at,
                "expires_at": t.expires_at,
                "revoked_at": t.revoked_at,
                "note": t.note,
            }
            for t in desk.tokens.tokens()
        ]
    show_table(session, rows, ("id", "role", "name", "expires_at", "revoked_at", "note"))


@token.command("revoke")
@click.argument("token_id", metavar="ID")
@config_option
@json_option
@click.pass_obj
def revoke_token(session: Session, token_id: str, config: Path) -> None:
    """Make a credential worthless from now on."""
    with open_desk(config) as desk:
        revoked = desk.tokens.revoke(token_id)
        left = desk.mint_work.orphaned([revoked])
    told = {"id": revoked.id, "revoked_at": revoked.revoked_at, "orphaned": left}
    show_made(session, revoked.id, told)
    note_orphaned(session, left)
