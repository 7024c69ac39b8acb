"""`sekisho site`: everything that the people of a site do. Each command is in its noun's module."""

from __future__ import annotations

import click

from sekisho.cli.site_check import check
from sekisho.cli.site_draft import manifest_from
from sekisho.cli.site_gate_key import gate_key
from sekisho.cli.site_jobs import jobs, show, status
from sekisho.cli.site_log import log
from sekisho.cli.site_setup import init, join
from sekisho.cli.site_switch import disable, drain, enable, pause, resume
from sekisho.cli.words import Group


@click.group(cls=Group)
def site() -> None:
    """Set up a site, look after it, and see what ran and what left."""


for _command in (
    init,
    join,
    check,
    status,
    jobs,
    show,
    log,
    pause,
    resume,
    drain,
    disable,
    enable,
    gate_key,
    manifest_from,
):
    site.add_command(_command)
