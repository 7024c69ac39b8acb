"""`sekisho site`: everything that the people of a site do. Each command is in its noun's module."""

from __future__ import annotations

from typing import Final

import click

from sekisho.cli.words import Lazy

_COMMANDS: Final = {
    "init": "sekisho.cli.site_setup:init",
    "join": "sekisho.cli.site_setup:join",
    "check": "sekisho.cli.site_check:check",
    "status": "sekisho.cli.site_jobs:status",
    "jobs": "sekisho.cli.site_jobs:jobs",
    "show": "sekisho.cli.site_jobs:show",
    "log": "sekisho.cli.site_log:log",
    "pause": "sekisho.cli.site_switch:pause",
    "resume": "sekisho.cli.site_switch:resume",
    "drain": "sekisho.cli.site_switch:drain",
    "disable": "sekisho.cli.site_switch:disable",
    "enable": "sekisho.cli.site_switch:enable",
    "gate-key": "sekisho.cli.site_gate_key:gate_key",
    "manifest-from": "sekisho.cli.site_draft:manifest_from",
}


@click.group(cls=Lazy, places=_COMMANDS)
def site() -> None:
    """Set up a site, look after it, and see what ran and what left."""
