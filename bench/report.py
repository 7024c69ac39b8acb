"""What every benchmark prints: the machine, a table, and one JSON object for programs."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Figure = int | float | None


@dataclass(frozen=True, slots=True)
class Spread:
    """How a measured quantity was spread over its samples."""

    p50: float
    p95: float
    p99: float
    samples: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """Return the spread of ``samples``, which are not empty."""
        ordered = sorted(samples)
        p50, p95, p99 = (percentile(ordered, share) for share in (0.50, 0.95, 0.99))
        return cls(p50, p95, p99, len(ordered))

    def cells(self, unit: str, digits: int = 2) -> tuple[str, ...]:
        """Return this as the cells of a row: median, 95 %, 99 %, number of samples."""
        values = (f"{value:.{digits}f} {unit}" for value in (self.p50, self.p95, self.p99))
        return (*values, str(self.samples))


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest of the ``ordered`` samples that is no less than ``share`` of them."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def machine() -> str:
    """Return the facts of this machine that a reader needs to judge the figures."""
    facts = (
        f"{len(os.sched_getaffinity(0))} cores of {_processor()}",
        f"Linux {platform.release()}",
        f"{platform.python_implementation()} {platform.python_version()}",
        f"load {os.getloadavg()[0]:.1f} at the end",
    )
    return ", ".join(facts)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


class Table:
    """A table in Markdown, so that it can be put into the documents as it is."""

    def __init__(self, *columns: str) -> None:
        self._rows: list[tuple[str, ...]] = [columns]

    def add(self, *cells: str) -> None:
        """Add a row; cells that are not given stay empty."""
        missing = len(self._rows[0]) - len(cells)
        self._rows.append((*cells, *[""] * missing))

    def show(self) -> None:
        """Print the table."""
        widths = [max(len(cell) for cell in column) for column in zip(*self._rows, strict=True)]
        head, *rows = self._rows
        rule = tuple("-" * width for width in widths)
        for row in (head, rule, *rows):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            print(f"| {' | '.join(cells)} |")


def conclude(table: Table, figures: Mapping[str, Figure], *, as_json: bool) -> None:
    """Print the machine and the table; with ``as_json``, the figures as the very last line."""
    print(f"\n{machine()}\n")
    table.show()
    if as_json:
        print(json.dumps({name: _short(figure) for name, figure in figures.items()}))


def _short(figure: Figure) -> Figure:
    return round(figure, 3) if isinstance(figure, float) else figure


def note(text: str) -> None:
    """Tell whoever waits what is being measured."""
    print(text, file=sys.stderr, flush=True)
