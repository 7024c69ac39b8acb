"""`sekisho broker`: everything that the operator of a broker does.

All commands but `serve` act on the data directory itself, beside a broker that may be serving it.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

from sekisho.adapters.durable import write_file
from sekisho.adapters.logging_setup import set_up_logging
from sekisho.broker.desk import Desk
from sekisho.broker.ports import EVERYONE, JobFilter
from sekisho.broker.scrub import Scrub
from sekisho.cli.broker_mint import import_ini
from sekisho.cli.broker_output import show, show_record, show_table
from sekisho.compose import broker as compose
from sekisho.config.broker import TEMPLATE, BrokerFiles, load_broker
from sekisho.domain import ids
from sekisho.domain.access import Role
from sekisho.domain.errors import Conflict, IntegrityError, NotFound
from sekisho.domain.job import JobState
from sekisho.http.admin_calls import status as figures
from sekisho.http.view import job_view

F = TypeVar("F", bound=Callable[..., Any])

_ROLES = [role.value for role in Role if role not in (Role.SITE, Role.INVITATION)]


def _config_option(function: F) -> F:
    return click.option(
        "-c",
        "--config",
        envvar="SEKISHO_BROKER_CONFIG",
        required=True,
        type=click.Path(path_type=Path, dir_okay=False),
        help="The broker's settings file, broker.toml (or SEKISHO_BROKER_CONFIG).",
    )(function)


def _json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


@contextmanager
def _desk(config: Path) -> Iterator[Desk]:
    set_up_logging("error")
    with compose.desk(load_broker(config)) as desk:
        yield desk


@click.group("broker")
def broker() -> None:
    """Run a broker, and look after its sites, tokens and jobs."""


@broker.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=50443, show_default=True, type=click.IntRange(0, 65_535))
@click.option("--tls-cert", type=click.Path(path_type=Path), help="PEM certificate chain.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="PEM private key.")
def init(
    directory: Path, host: str, port: int, tls_cert: Path | None, tls_key: Path | None
) -> None:
    """Make DIRECTORY with settings, a database and a place for chunks."""
    config = directory / "broker.toml"
    if config.exists():
        raise Conflict("broker.exists", file=str(config))
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = TEMPLATE.format(
        host=json.dumps(host),
        port=port,
        tls_cert=_key_line("tls_cert", tls_cert),
        tls_key=_key_line("tls_key", tls_key),
    )
    write_file(config, text.encode())
    compose.prepare(load_broker(config))
    click.echo(f"settings: {config}\nnext: sekisho broker site add NAME --user USER -c {config}")


def _key_line(name: str, path: Path | None) -> str:
    if path is None:
        return f'# {name} = "{name}.pem"'
    return f"{name} = {json.dumps(str(path.absolute()), ensure_ascii=False)}"


@broker.command()
@_config_option
def serve(config: Path) -> None:
    """Serve until SIGTERM or Ctrl+C. SIGHUP reads the settings again."""
    compose.run(config)


@broker.command()
@_config_option
def migrate(config: Path) -> None:
    """Bring the database to this program's version. Make a backup first."""
    compose.prepare(load_broker(config))


@broker.command()
@_config_option
def reload(config: Path) -> None:
    """Make the serving broker read its settings again. Faulty settings are told here."""
    files = load_broker(config)
    os.kill(compose.serving_pid(files), signal.SIGHUP)


@broker.command()
@click.argument("destination", type=click.Path(path_type=Path))
@_config_option
@_json_option
def backup(destination: Path, config: Path, *, as_json: bool) -> None:
    """Copy database and chunks to the new directory DESTINATION, and verify the copy."""
    set_up_logging("error")
    copied = compose.back_up(load_broker(config), destination)
    show_record(copied, as_json=as_json)


@broker.command()
@_config_option
@_json_option
def scrub(config: Path, *, as_json: bool) -> None:
    """Read and verify every stored chunk; name what is damaged, and the jobs that need it."""
    with _desk(config) as desk:
        pass_ = Scrub(desk.ports.store, desk.ports.blobs)
        damage = []
        for one in pass_.run(desk.ports.clock.now()):
            damage.append(one)
            if not as_json:
                show(f"{one.what} {one.digest} {one.site} {one.submitter} {' '.join(one.jobs)}")
    row = {"chunks": pass_.chunks, "chunk_bytes": pass_.bytes, "damage": len(damage)}
    show_record(row | {"damage": damage} if as_json else row, as_json=as_json)
    if damage:
        raise IntegrityError("store.chunks_damaged", count=len(damage))


@broker.command()
@_config_option
@_json_option
def status(config: Path, *, as_json: bool) -> None:
    """Show figures, and whether the broker is serving."""
    files = load_broker(config)
    with _desk(config) as desk:
        now = desk.ports.clock.now()
        seen = figures(desk, now)
        connected = [s.id for s in desk.ports.store.directory.sites() if desk.sites.connected(s)]
    row = {
        "version": seen.version,
        "serving": _serving(files),
        "connected": connected,
        "jobs": seen.jobs,
        "stored_bytes": seen.stored_bytes,
        "free_bytes": seen.free_bytes,
    }
    show_record(row, as_json=as_json)


def _serving(files: BrokerFiles) -> bool:
    try:
        return compose.serving_pid(files) > 0
    except NotFound:
        return False


broker.add_command(import_ini)

# --- jobs --------------------------------------------------------------------------------------


@broker.command()
@click.option("--site", help="Only of this site.")
@click.option("--user", help="Only of this submitter.")
@click.option("--state", type=click.Choice([s.value for s in JobState]), help="Only in this state.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10_000))
@_config_option
@_json_option
def jobs(  # noqa: PLR0913 - click passes each option as an argument
    config: Path,
    site: str | None,
    user: str | None,
    state: str | None,
    limit: int,
    *,
    as_json: bool,
) -> None:
    """List jobs, newest first. What they compute, the broker does not know."""
    states = None if state is None else frozenset({JobState(state)})
    which = JobFilter(site=site, submitter=user, states=states)
    with _desk(config) as desk:
        found = desk.ports.store.jobs.page(which, after=None, limit=limit)
    views = [job_view(job, with_result=False) for job in found]
    show_table(views, ("id", "site", "submitter", "state", "changed_at"), as_json=as_json)


@broker.command("show")
@click.argument("job_id")
@_config_option
@_json_option
def show_job(job_id: str, config: Path, *, as_json: bool) -> None:
    """Show a job, the chunks that it holds, and the states that it went through."""
    with _desk(config) as desk:
        job = desk.jobs.get(job_id, EVERYONE)
        chunks = desk.ports.store.ledger.declared(job.id)
        history = desk.ports.store.ledger.history(job.id)
    row = {
        "job": job_view(job, with_result=False),
        "epoch": job.epoch,
        "instance": job.instance,
        "chunks": len(chunks),
        "chunk_bytes": sum(chunk.size for chunk in chunks),
        "history": [{"at": at, "state": state.value} for at, state in history],
    }
    show_record(row, as_json=as_json)


@broker.command()
@click.argument("job_id")
@click.option("--by", required=True, help="Who declares it: your name.")
@_config_option
def lost(job_id: str, config: Path, by: str) -> None:
    """Declare a job lost whose site cannot tell of it any more.

    The job ends as `lost`; it is not run again, and a late result is refused.
    """
    with _desk(config) as desk:
        click.echo(desk.sites.lost(job_id, by).state.value)


# --- sites -------------------------------------------------------------------------------------


@broker.group()
def site() -> None:
    """Add sites and take them out of service."""


@site.command("add")
@click.argument("name")
@click.option("--user", "users", multiple=True, required=True, help="A submitter it serves.")
@click.option("--hours", default=24, show_default=True, type=click.IntRange(1, 168))
@_config_option
def add_site(name: str, users: tuple[str, ...], hours: int, config: Path) -> None:
    """Add the site NAME and print a one-time invitation for `sekisho site join`."""
    with _desk(config) as desk:
        desk.sites.add(name, frozenset(users))
        _, secret = desk.tokens.invite(name, lasts=timedelta(hours=hours))
    click.echo(secret.reveal())


@site.command("users")
@click.argument("name")
@click.option("--user", "users", multiple=True, required=True, help="A submitter it serves.")
@_config_option
def site_users(name: str, users: tuple[str, ...], config: Path) -> None:
    """Replace the submitters that the broker lets through to the site NAME."""
    with _desk(config) as desk:
        desk.sites.serve(name, frozenset(users))


@site.command("list")
@_config_option
@_json_option
def list_sites(config: Path, *, as_json: bool) -> None:
    """List the sites, with when their agent was last seen."""
    with _desk(config) as desk:
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
    columns = (*shown, "submitters")
    show_table(rows, columns, as_json=as_json)


def _switch(name: str, config: Path, command: str | None, *, disabled: bool) -> None:
    with _desk(config) as desk:
        desk.sites.switch(ids.check_site(name), disabled=disabled, command=command)


@site.command("disable")
@click.argument("name")
@click.option("--command", help="Only this command of the site.")
@_config_option
def disable_site(name: str, config: Path, command: str | None) -> None:
    """Offer the site NAME nothing more, at once. What it runs goes on."""
    _switch(name, config, command, disabled=True)


@site.command("enable")
@click.argument("name")
@click.option("--command", help="Only this command of the site.")
@_config_option
def enable_site(name: str, config: Path, command: str | None) -> None:
    """Put the site NAME, or a command of it, back into service."""
    _switch(name, config, command, disabled=False)


@site.command("rotate")
@click.argument("name")
@_config_option
def rotate_site(name: str, config: Path) -> None:
    """Shut the site's present agent out and print a new invitation."""
    with _desk(config) as desk:
        _, secret = desk.tokens.rotate(ids.check_site(name))
    click.echo(secret.reveal())


# --- tokens ------------------------------------------------------------------------------------


@broker.group()
def token() -> None:
    """Make, list and revoke credentials."""


@token.command("create")
@click.option("--role", required=True, type=click.Choice(_ROLES))
@click.option("--user", required=True, help="Whom it stands for.")
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="How long it is valid.")
@click.option("--note", default="", help="What it is for.")
@click.option("--to", type=click.Path(path_type=Path), help="New 0600 file for the secret.")
@click.option("--show", "shown", is_flag=True, help="Print the secret instead of writing a file.")
@_config_option
def create_token(  # noqa: PLR0913 - click passes each option as an argument
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
    with _desk(config) as desk:
        made, secret = desk.tokens.create(Role(role), user, lasts=lasts, note=note)
    if shown:
        click.echo(secret.reveal())
    else:
        write_file(file, f"{secret.reveal()}\n".encode())
        click.echo(f"{made.id} {file}")


@token.command("list")
@_config_option
@_json_option
def list_tokens(config: Path, *, as_json: bool) -> None:
    """List credentials, never their secrets."""
    with _desk(config) as desk:
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
    columns = ("id", "role", "name", "expires_at", "revoked_at", "note")
    show_table(rows, columns, as_json=as_json)


@token.command("revoke")
@click.argument("token_id")
@_config_option
def revoke_token(token_id: str, config: Path) -> None:
    """Make a credential worthless from now on."""
    with _desk(config) as desk:
        show(desk.tokens.revoke(token_id).id)
