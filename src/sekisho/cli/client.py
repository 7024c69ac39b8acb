"""`sekisho client`: set up this side, and find out why the broker cannot be reached."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from sekisho.cli import output
from sekisho.cli.session import Session
from sekisho.cli.words import Command, Group, json_option
from sekisho.domain.errors import ConfigError, Conflict, UsageError
from sekisho.domain.token import is_token

#: More than this and tokens, queue limits and logs of the two sides no longer agree.
MAX_CLOCK_DIFFERENCE_SECONDS: Final = 60.0


@click.group(cls=Group)
def client() -> None:
    """Set up and check the way to the broker."""


@client.command(cls=Command)
@click.option("--broker", "url", required=True, metavar="URL")
@click.option("--token-file", required=True, type=click.Path(allow_dash=True), metavar="FILE")
@click.option("--ca", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--proxy", metavar="URL")
@click.option("--force", is_flag=True)
@json_option
@click.pass_obj
def init(  # noqa: PLR0913 (one for each option)
    session: Session,
    *,
    url: str,
    token_file: str,
    ca: Path | None,
    proxy: str | None,
    force: bool,
) -> None:
    """Write the settings of this side. `--token-file -` reads the token from stdin."""
    from sekisho.adapters.http_client import base_url  # noqa: PLC0415
    from sekisho.adapters.token_file import read_token  # noqa: PLC0415
    from sekisho.config.client import TOKEN_FILE, default_file, settings_text  # noqa: PLC0415

    base_url(url)
    file = (session.config or default_file(os.environ)).absolute()
    if file.exists() and not force:
        raise Conflict("client.exists", file=str(file))
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if token_file == "-":  # noqa: S105 (stdin)
        given = sys.stdin.readline().strip()
        if not is_token(given):
            raise ConfigError("token.malformed", file="stdin")
        _write(file.parent / TOKEN_FILE, given + "\n")
        token_file = TOKEN_FILE
    else:
        token_file = str(Path(token_file).absolute())
    read_token(file.parent / token_file)
    ca_file = None if ca is None else str(ca.absolute())
    _write(file, settings_text(url=url, token_file=token_file, ca_file=ca_file, proxy=proxy))
    if session.json:
        output.result_json(session, {"settings": file, "broker": url})
    output.note(session, session.say("client_written", file=str(file)))


@client.command(cls=Command)
@json_option
@click.pass_obj
def check(session: Session) -> None:
    """Check the way to the broker: settings, network, TLS, token, clock."""
    from sekisho.config.client import load_client  # noqa: PLC0415

    files = load_client(session.config)
    with session.client() as line:
        sites = line.sites()
        there = line.clock()
    away = 0.0 if there is None else abs((datetime.now(UTC) - there).total_seconds())
    if away > MAX_CLOCK_DIFFERENCE_SECONDS:
        raise UsageError("clock.differs", seconds=round(away))
    broker = files.settings.broker
    url = "ssh" if broker is None else broker.url
    if session.json:
        facts = {"broker": url, "sites": [s.id for s in sites], "clock_difference_s": away}
        output.result_json(session, facts)
    else:
        output.result(session, session.say("client_ok", url=url, sites=len(sites)))


def _write(file: Path, text: str) -> None:
    """Write a file for the user alone, whole or not at all."""
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(file)
