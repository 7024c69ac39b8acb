"""A bare site, as its settings mean it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from sekisho.adapters.lane_bare import BareSite
from sekisho.config.client import SshSite
from sekisho.domain.limits import MAX_VALUE_LENGTH
from sekisho.domain.manifest import Command
from sekisho.domain.parameter import Text

_PLACEHOLDER: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}")


def bare_site(name: str, site: SshSite) -> BareSite:
    """Return what the settings of the bare site ``name`` mean."""
    programs = {command: program(command, argv) for command, argv in site.program.items()}
    return BareSite(name=name, programs=programs, retention_days=site.retention_days)


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
