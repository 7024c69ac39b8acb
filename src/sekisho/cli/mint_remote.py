"""`mi-system-remote`: the old agent's command line, for the new agent.

The site's directory, with its manifest, is that of `sekisho site` (SEKISHO_SITE_DIR). How often and
when to try again is our own matter, so `retry:` is accepted and not needed.
"""

from __future__ import annotations

import os
from pathlib import Path

from sekisho.cli import output
from sekisho.cli.agent import run_agent
from sekisho.cli.mint import (
    environ_with,
    first_lines,
    need,
    old_token,
    old_url,
    old_words,
    token_file,
)
from sekisho.cli.session import Session
from sekisho.compose.site import MintWay
from sekisho.config.manifest import load_manifest
from sekisho.config.mint_ini import site_name
from sekisho.config.site import load_site
from sekisho.domain.errors import ConfigError


def remote(session: Session, given: list[str]) -> int:
    """Serve until told to end; return the exit status."""
    need(session, given, 3, "mint_remote_help")
    token, file = old_token(session, given[2]), token_file(given[2])
    site, words = given[0], old_words(given[3:])
    url = old_url(given[1], words.port)
    home = os.environ.get("SEKISHO_SITE_DIR") or "~/.config/sekisho/site"
    files = load_site(Path(home).expanduser(), environ_with(words))
    if (listed := load_manifest(files.manifest).site) not in (site, site_name(site)):
        raise ConfigError("mint.other_site", site=site, manifest=listed)
    first_lines(session, site, url)
    way = MintWay(
        url=url,
        site=site,
        submitter=words.user,
        token=None if file else token,
        token_file=file,
        heard=lambda line: output.result(session, line),
    )
    return run_agent(session, files, once=False, way=way)
