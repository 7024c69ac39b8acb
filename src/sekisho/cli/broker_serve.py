"""`sekisho broker serve`."""

from __future__ import annotations

from pathlib import Path

import click

from sekisho.cli.broker_home import config_option
from sekisho.cli.words import Command
from sekisho.compose.broker_serve import run


@click.command(cls=Command)
@config_option
def serve(config: Path) -> None:
    """Serve until SIGTERM or Ctrl+C. SIGHUP reads the settings again."""
    run(config)
