"""Sandbox that only remembers what it was asked for: for tests of the runner."""

from __future__ import annotations

from sekisho.domain.egress import Fault
from sekisho.domain.launch import Sandbox as Grants


class MemorySandbox:
    """Sandbox that confines nothing; ``why`` are its faults."""

    def __init__(self, why: list[Fault] | None = None) -> None:
        self.why = why or []
        self.asked: list[tuple[tuple[str, ...], str, Grants]] = []

    def wrap(self, argv: tuple[str, ...], work_dir: str, grants: Grants) -> tuple[str, ...]:
        self.asked.append((argv, work_dir, grants))
        return ("/confined", *argv)

    def faults(self, grants: Grants) -> list[Fault]:
        del grants
        return list(self.why)
