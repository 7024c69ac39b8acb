"""`sekisho broker`: everything that the operator of a broker does.

All commands but `serve` act on the data directory itself, beside a broker that may be serving it.
Each is in its noun's module.
"""

from __future__ import annotations

from typing import Final

import click

from sekisho.cli.words import Lazy

_COMMANDS: Final = {
    "init": "sekisho.cli.broker_setup:init",
    "serve": "sekisho.cli.broker_serve:serve",
    "status": "sekisho.cli.broker_status:status",
    "reload": "sekisho.cli.broker_status:reload",
    "site": "sekisho.cli.broker_site:site",
    "token": "sekisho.cli.broker_token:token",
    "jobs": "sekisho.cli.broker_jobs:jobs",
    "show": "sekisho.cli.broker_jobs:show_job",
    "lost": "sekisho.cli.broker_jobs:lost",
    "backup": "sekisho.cli.broker_data:backup",
    "scrub": "sekisho.cli.broker_data:scrub",
    "migrate": "sekisho.cli.broker_setup:migrate",
    "import-ini": "sekisho.cli.broker_mint:import_ini",
}


@click.group("broker", cls=Lazy, places=_COMMANDS)
def broker() -> None:
    """Run a broker and look after it."""
