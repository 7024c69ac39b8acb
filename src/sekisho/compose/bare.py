"""The lane to a bare site, put together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from sekisho.adapters.hosts.bare import BareHost
from sekisho.adapters.hosts.ssh import SshHost
from sekisho.adapters.job_notes import JobNotes
from sekisho.adapters.lane_bare import BareLane, BareSite
from sekisho.adapters.patience import Patience
from sekisho.config.client import SshSite
from sekisho.domain.limits import MAX_VALUE_LENGTH
from sekisho.domain.manifest import Command
from sekisho.domain.parameter import Text

_PLACEHOLDER: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}")


def bare_lane(
    name: str, site: SshSite, host: SshHost, notes: JobNotes, patience: Patience
) -> BareLane:
    """Return the lane to the bare site ``name`` at ``host``."""
    programs = {command: program(command, argv) for command, argv in site.program.items()}
    settings = BareSite(name=name, programs=programs, retention_days=site.retention_days)
    return BareLane(settings, BareHost(host, site.base.rstrip("/")), notes, patience)


def program(name: str, argv: Sequence[str]) -> Command:
    """Return the command that this side's settings agreed with a bare site.

    There is no manifest there, so a value may be any text that can be one argument.
    """
    named = sorted({found for word in argv for found in _PLACEHOLDER.findall(word)})
    free = Text(
        pattern=f".{{0,{MAX_VALUE_LENGTH}}}", max_length=MAX_VALUE_LENGTH, leading_dash=True
    )
    return Command(
        name=name,
        argv=tuple(argv),
        parameters=dict.fromkeys(named, free),
        time_limit=timedelta(days=3650),
    )
