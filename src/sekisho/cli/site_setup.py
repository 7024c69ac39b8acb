"""Making a site and joining it to its broker."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import click

from sekisho.adapters.durable import sync_directory, write_file
from sekisho.adapters.token_file import read_token
from sekisho.cli import output
from sekisho.cli.session import Session
from sekisho.cli.site_home import home_option, open_site
from sekisho.cli.words import Command, json_option
from sekisho.config.load import read_text
from sekisho.config.manifest import parse_manifest
from sekisho.config.ownership import check_ours
from sekisho.config.site import MANIFEST_NAME, SETTINGS_NAME, SiteFiles
from sekisho.config.site_template import (
    UNNAMED,
    agent_text,
    manifest_text,
    with_site,
    with_submitters,
)
from sekisho.domain.errors import ConfigError, Conflict, UsageError
from sekisho.domain.ids import check_site, check_user
from sekisho.domain.token import Secret, is_token
from sekisho.wire.v1 import Joined

_SOME_BROKER: Final = "https://broker.example:50443"
_CA_NAME: Final = "ca.pem"


@click.command(cls=Command)
@home_option
@click.option("--site", "name", metavar="NAME")
@click.option("--user", "users", multiple=True, metavar="USER")
@click.option("--broker", "url", metavar="URL")
@click.option("--ca", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@json_option
@click.pass_obj
def init(  # noqa: PLR0913 (one for each option)
    session: Session,
    *,
    home: Path,
    name: str | None,
    users: tuple[str, ...],
    url: str | None,
    ca: Path | None,
) -> None:
    """Make a site's directory with a commented manifest. Nothing is ever overwritten."""
    from sekisho.adapters.http_client import base_url, trust  # noqa: PLC0415

    submitters = [check_user(user) for user in users]
    manifest = manifest_text(site=None if name is None else check_site(name), submitters=submitters)
    base_url(url or _SOME_BROKER)
    trust(ca)
    settings = agent_text(url=url or _SOME_BROKER, ca_file=None if ca is None else _CA_NAME)
    contents = {MANIFEST_NAME: manifest.encode(), SETTINGS_NAME: settings.encode()}
    if ca is not None:
        contents[_CA_NAME] = ca.read_bytes()
    _make(home.absolute(), contents)
    here = home.absolute()
    output.done(session, session.say("site_made", home=str(here)), {"directory": here})
    if url is None:
        output.note(session, session.say("site_needs_url", file=str(home / SETTINGS_NAME)))


def _make(home: Path, contents: dict[str, bytes]) -> None:
    for name in contents:
        if (home / name).exists():
            raise Conflict("site.file_exists", file=str(home / name))
        check_ours(home / name)  # or it would be made in vain
    for folder in (home, home / "work", home / "state"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, content in contents.items():
        _create(home / name, content)
    sync_directory(home)


def _create(file: Path, content: bytes) -> None:
    """Make ``file``, for its owner alone; one that exists since a moment ago is left alone."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(file, flags, 0o600)
    except FileExistsError as error:
        raise Conflict("site.file_exists", file=str(file)) from error
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(descriptor)


@click.command(cls=Command)
@home_option
@click.option("--invitation-file", type=click.Path(path_type=Path), metavar="FILE")
@json_option
@click.pass_obj
def join(session: Session, home: Path, invitation_file: Path | None) -> None:
    """Join the broker with the invitation that its operator gave you.

    Without --invitation-file it is asked for, unseen. It may be repeated when an answer was lost.
    """
    from sekisho.compose import site as compose  # noqa: PLC0415 (HTTP only when needed)

    files = open_site(home)
    invitation = _invitation(session, invitation_file)
    joined = compose.join(files, invitation)
    changed = _adapt(files, joined)
    if session.json:
        facts = {"site": joined.site, "submitters": joined.submitters, "manifest_changed": changed}
        output.result_json(session, facts)
    else:
        output.result(session, session.say("site_joined", site=joined.site))
        if changed:
            served = ", ".join(joined.submitters)
            output.result(
                session,
                session.say("site_adapted", file=str(files.manifest), submitters=served),
            )


def _invitation(session: Session, file: Path | None) -> Secret:
    if file is not None:
        return read_token(file)
    if sys.stdin.isatty():
        text = click.prompt(session.say("site_invitation"), hide_input=True, err=True)
    else:
        text = sys.stdin.readline()
    if not is_token(text.strip()):
        raise UsageError("site.invitation_malformed")
    return Secret(text.strip())


def _adapt(files: SiteFiles, joined: Joined) -> bool:
    """Put into the manifest what the operator knows, where its owner has not decided yet."""
    before = read_text(files.manifest)
    manifest = parse_manifest(before, files.manifest.name)
    after = before
    if manifest.site == UNNAMED:
        after = with_site(after, joined.site)
    if not manifest.submitters.users:
        after = with_submitters(after, joined.submitters)
    if after != before:
        manifest = parse_manifest(after, files.manifest.name)
        write_file(files.manifest, after.encode())
    if manifest.site != joined.site:
        file = str(files.manifest)
        raise ConfigError("site.other_name", joined=joined.site, site=manifest.site, file=file)
    return after != before
