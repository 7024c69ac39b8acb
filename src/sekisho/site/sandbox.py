"""What the runner needs of whatever holds a command to what its manifest grants."""

from __future__ import annotations

from typing import Protocol

from sekisho.domain.egress import Fault
from sekisho.domain.launch import Sandbox as Grants


class Sandbox(Protocol):
    """Confinement of a command: whole, or nothing is started."""

    def wrap(self, argv: tuple[str, ...], work_dir: str, grants: Grants) -> tuple[str, ...]:
        """Return the argument vector that runs ``argv`` with ``grants`` and its work directory.

        Its exit code and signals are those of ``argv``; 126 when the confinement failed.
        """
        ...

    def faults(self, grants: Grants) -> list[Fault]:
        """Return why ``grants`` cannot be enforced here; empty: they can."""
        ...
