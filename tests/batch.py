"""A trio whose site starts its command through a batch system, real or a fake one on PATH."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.faults.trio import MANIFEST, Trio

_SCHEDULER: Final = """
[scheduler.trial]
dialect = "{dialect}"
poll_s = 0.2
poll_max_s = 1.0
settle_s = 1.0
timeout_s = {timeout_s}
{commands}
[scheduler.trial.environment]
{environment}
"""


def through(
    trio: Trio,
    environment: Mapping[str, str],
    *,
    dialect: str = "slurm",
    command: str = "",
    commands: str = "",
    timeout_s: float = 20.0,
    running: int = 16,
) -> None:
    """Write a manifest whose command `work` runs through a batch system; ``command``: more keys."""
    text = MANIFEST.format(home=trio.home).replace("max_running = 16", f"max_running = {running}")
    head, mark, tail = text.partition("[command.parameters]")
    batch = _SCHEDULER.format(
        dialect=dialect,
        timeout_s=timeout_s,
        commands=commands,
        environment="\n".join(f'{name} = "{value}"' for name, value in environment.items()),
    )
    said = f'scheduler = "trial"\n{command}\n{mark}{tail}{batch}'
    (trio.site / "manifest.toml").write_text(head + said)


def batch_ids(trio: Trio, witness: str = "submitted") -> list[str]:
    """Return what a fake batch system noted of each of its jobs."""
    file: Path = trio.home / witness
    return file.read_text().split() if file.exists() else []
