"""Files to send: noise, a solver's mesh, many small ones."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Final

_MIB: Final = 1 << 20
SMALL_BYTES: Final = 10 << 10


def random_file(path: Path, mib: int) -> Path:
    """Write ``mib`` MiB that nothing can pack."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(_MIB))
    return path


def text_file(path: Path, mib: int) -> Path:
    """Write ``mib`` MiB of a solver's mesh: numbered nodes with three coordinates."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dice, number = random.Random(time.time_ns()), 0  # noqa: S311 (a mesh, not a secret)
    with path.open("w", encoding="ascii") as file:
        while file.tell() < mib * _MIB:
            lines = []
            for _ in range(20_000):
                number += 1
                x, y, z = (dice.uniform(-50, 50) for _ in range(3))
                lines.append(f"{number:8d}, {x:14.6e}, {y:14.6e}, {z:14.6e}\n")
            file.write("".join(lines))
        file.truncate(mib * _MIB)
    return path


def small_files(folder: Path, number: int) -> Path:
    """Write ``number`` files of 10 KiB, a hundred in each folder."""
    for n in range(number):
        place = folder / f"{n // 100:03}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{n}").write_bytes(os.urandom(SMALL_BYTES))
    return folder


def change_places(file: Path, places: int) -> None:
    """Overwrite 100 bytes at ``places`` places."""
    size = file.stat().st_size
    with file.open("r+b") as opened:
        for _ in range(places):
            opened.seek(random.randrange(size - 100))  # noqa: S311 (a place, not a secret)
            opened.write(os.urandom(100))


def insert_lines(file: Path) -> None:
    """Insert ten lines at the top."""
    longer = file.with_name("longer")
    with file.open("rb") as old, longer.open("wb") as new:
        new.write(b"ten lines at the top\n" * 10)
        while piece := old.read(_MIB):
            new.write(piece)
    longer.replace(file)
