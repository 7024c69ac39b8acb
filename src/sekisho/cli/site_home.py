"""Which directory is the site's: the option that every command about a site takes."""

from __future__ import annotations

import os
from pathlib import Path

import click

from sekisho.config.site import SiteFiles, load_site

home_option = click.option(
    "--dir",
    "home",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="SEKISHO_SITE_DIR",
    default=lambda: Path("~/.config/sekisho/site").expanduser(),
    show_default="$SEKISHO_SITE_DIR, ~/.config/sekisho/site",
)


def open_site(home: Path) -> SiteFiles:
    """Return the site in ``home``, its settings overridden by the environment."""
    return load_site(home, dict(os.environ))
