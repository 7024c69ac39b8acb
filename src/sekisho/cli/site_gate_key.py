"""`sekisho site gate-key`: which ssh keys open this site's gate, and for whom."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from sekisho.adapters.gate_keys import add_key, fingerprint_of, gate_keys, line_for, remove_key
from sekisho.cli import output
from sekisho.cli.session import Session
from sekisho.cli.site_home import home_option, open_site
from sekisho.cli.words import Command, Group, json_option
from sekisho.domain.errors import UsageError

_FILE = click.option(
    "--authorized-keys",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    default=lambda: Path.home() / ".ssh" / "authorized_keys",
)
#: More than any public key has.
_MAX_KEY_BYTES = 64 << 10


@click.group("gate-key", cls=Group)
def gate_key() -> None:
    """Say which ssh keys open this site's gate, and for whom."""


@gate_key.command(cls=Command)
@home_option
@_FILE
@click.argument("key", metavar="KEYFILE", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--submitter", metavar="USER", required=True)
@click.option("--from", "sources", metavar="PATTERN")
@click.option("--expires", metavar="DATE")
@json_option
@click.pass_obj
def add(  # noqa: PLR0913 (one for each option)
    session: Session,
    *,
    home: Path,
    file: Path,
    key: Path,
    submitter: str,
    sources: str | None,
    expires: str | None,
) -> None:
    """Let the public key in KEYFILE open the gate, and do nothing else."""
    files = open_site(home)
    try:
        with key.open("rb") as stream:
            text = stream.read(_MAX_KEY_BYTES).decode().strip()
    except UnicodeDecodeError as error:
        raise UsageError("gate.key_invalid") from error
    end = _time(expires)
    line = line_for(text, home=files.home, submitter=submitter, sources=sources, expires=end)
    add_key(file, line)
    key_print = fingerprint_of(text)
    said = session.say("gate_key_added", print=key_print, user=submitter, file=str(file))
    output.done(session, said, {"key": key_print, "submitter": submitter, "file": file})


@gate_key.command("list", cls=Command)
@_FILE
@json_option
@click.pass_obj
def list_keys(session: Session, *, file: Path) -> None:
    """List the keys that open a gate."""
    keys = gate_keys(file)
    if session.json:
        rows = [
            {"key": k.fingerprint, "submitter": k.submitter, "options": k.options, "note": k.note}
            for k in keys
        ]
        output.result_json(session, {"keys": rows})
        return
    for k in keys:
        output.result(session, "  ".join((k.fingerprint, k.submitter, k.options or "-", k.note)))


@gate_key.command(cls=Command)
@_FILE
@click.argument("fingerprint", metavar="SHA256:…")
@json_option
@click.pass_obj
def remove(session: Session, *, file: Path, fingerprint: str) -> None:
    """Take the key with this fingerprint out of the file."""
    remove_key(file, fingerprint)
    removed = session.say("gate_key_removed", print=fingerprint)
    output.done(session, removed, {"key": fingerprint, "file": file})


def _time(text: str | None) -> datetime | None:
    """Return when a key ends: after a day, or at a moment. A time without a zone is local."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
        day = len(text) == len("2027-03-31")
        return (at + timedelta(days=1) if day else at).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError("gate.expiry_invalid") from error
