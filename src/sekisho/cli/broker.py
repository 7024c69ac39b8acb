"""`sekisho broker`: everything that the operator of a broker does.

All commands but `serve` act on the data directory itself, beside a broker that may be serving it.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import click

from sekisho.adapters.durable import write_file
from sekisho.adapters.logging_setup import silence
from sekisho.broker.scrub import Damage, Scrub
from sekisho.cli.broker_home import config_option, open_desk
from sekisho.cli.broker_jobs import jobs, lost, show_job
from sekisho.cli.broker_mint import import_ini, last_uses
from sekisho.cli.broker_output import show, show_made, show_record
from sekisho.cli.broker_site import site
from sekisho.cli.broker_token import token
from sekisho.cli.session import Session
from sekisho.cli.words import Group, json_option
from sekisho.compose import broker as compose
from sekisho.config.broker import TEMPLATE, BrokerFiles, load_broker
from sekisho.domain.errors import Conflict, IntegrityError, NotFound
from sekisho.http.admin_calls import status as figures


@click.group("broker", cls=Group)
def broker() -> None:
    """Run a broker and look after it."""


for _command in (import_ini, jobs, show_job, lost, site, token):
    broker.add_command(_command)


@broker.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option(
    "--port", metavar="N", default=50443, show_default=True, type=click.IntRange(0, 65_535)
)
@click.option("--tls-cert", type=click.Path(path_type=Path))
@click.option("--tls-key", type=click.Path(path_type=Path))
@json_option
@click.pass_obj
def init(  # noqa: PLR0913 (one for each option)
    session: Session,
    *,
    directory: Path,
    host: str,
    port: int,
    tls_cert: Path | None,
    tls_key: Path | None,
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
    made = session.say("broker_made", file=str(config))
    show_made(session, made, {"settings": str(config)})


def _key_line(name: str, path: Path | None) -> str:
    if path is None:
        return f'# {name} = "{name}.pem"'
    return f"{name} = {json.dumps(str(path.absolute()), ensure_ascii=False)}"


@broker.command()
@config_option
def serve(config: Path) -> None:
    """Serve until SIGTERM or Ctrl+C. SIGHUP reads the settings again."""
    compose.run(config)


@broker.command()
@config_option
@json_option
@click.pass_obj
def migrate(session: Session, config: Path) -> None:
    """Bring the database to this program's version. Make a backup first."""
    files = load_broker(config)
    compose.prepare(files)
    show_made(session, session.say("broker_migrated"), {"data": str(files.data)})


@broker.command()
@config_option
@json_option
@click.pass_obj
def reload(session: Session, config: Path) -> None:
    """Make the serving broker read its settings again. Faulty settings are told here."""
    files = load_broker(config)
    process = compose.serving_pid(files)
    os.kill(process, signal.SIGHUP)
    show_made(session, session.say("broker_reloads"), {"process": process})


@broker.command()
@click.argument("destination", type=click.Path(path_type=Path))
@config_option
@json_option
@click.pass_obj
def backup(session: Session, destination: Path, config: Path) -> None:
    """Copy database and chunks to the new directory DESTINATION, and verify the copy."""
    silence()
    show_record(session, compose.back_up(load_broker(config), destination))


@broker.command()
@config_option
@json_option
@click.pass_obj
def scrub(session: Session, config: Path) -> int:
    """Read and verify every stored chunk; name what is damaged, and the jobs that need it."""
    with open_desk(config) as desk:
        pass_ = Scrub(desk.ports.store, desk.ports.blobs)
        damage = []
        for one in pass_.run(desk.ports.clock.now()):
            damage.append(one)
            if not session.json:
                show(_words(session, one))
    fault = IntegrityError("store.chunks_damaged", count=len(damage)) if damage else None
    row = {"chunks": pass_.chunks, "chunk_bytes": pass_.bytes, "damage": len(damage)}
    if session.json:  # one object tells all of it
        code = {"code": fault.code} if fault else {}
        show_record(session, row | {"damage": damage} | code)
        return fault.exit_status if fault else 0
    show_record(session, row)
    if fault:
        raise fault
    return 0


def _words(session: Session, damage: Damage) -> str:
    what = session.say(f"chunk_{damage.what}")
    jobs = ", ".join(damage.jobs) or session.say("no_job")
    place = {"site": damage.site, "submitter": damage.submitter}
    return session.say("chunk_damage", what=what, digest=damage.digest, jobs=jobs, **place)


@broker.command()
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
