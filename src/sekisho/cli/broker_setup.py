"""`sekisho broker init|migrate`: a broker's settings, database and place for chunks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import click

from sekisho.adapters.durable import write_file
from sekisho.cli.broker_home import config_option
from sekisho.cli.broker_output import show_made
from sekisho.cli.session import Session
from sekisho.cli.words import Command, json_option
from sekisho.compose import broker as compose
from sekisho.config.broker import TEMPLATE, load_broker
from sekisho.domain.errors import Conflict, SekishoError

#: The lines of what is not asked for.
_UNSET: Final = {
    "tls_cert": '# tls_cert = "tls_cert.pem"',
    "tls_key": '# tls_key = "tls_key.pem"',
    "database_url_file": '# database_url_file = "database-url"   # PostgreSQL; without it SQLite',
}


@click.command(cls=Command)
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option(
    "--port", metavar="N", default=50443, show_default=True, type=click.IntRange(0, 65_535)
)
@click.option("--tls-cert", type=click.Path(path_type=Path))
@click.option("--tls-key", type=click.Path(path_type=Path))
@click.option("--database-url-file", type=click.Path(path_type=Path))
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
    database_url_file: Path | None,
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
        database=_key_line("database_url_file", database_url_file),
    )
    write_file(config, text.encode())
    try:
        compose.prepare(load_broker(config))
    except SekishoError:
        config.unlink()  # so that the same line may be typed again
        raise
    made = session.say("broker_made", file=str(config))
    show_made(session, made, {"settings": str(config)})


def _key_line(name: str, path: Path | None) -> str:
    if path is None:
        return _UNSET[name]
    return f"{name} = {json.dumps(str(path.absolute()), ensure_ascii=False)}"


@click.command(cls=Command)
@config_option
@json_option
@click.pass_obj
def migrate(session: Session, config: Path) -> None:
    """Bring the database to this program's version. Make a backup first."""
    files = load_broker(config)
    compose.prepare(files)
    show_made(session, session.say("broker_migrated"), {"data": str(files.data)})
