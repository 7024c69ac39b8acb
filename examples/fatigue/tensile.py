"""The three tensile properties that a workflow knows, and the files that carry them.

A property file holds one number; a comment line (`#`) before or after it names the unit in
square brackets, for example `# reduction of area [%]`. A file without its unit is refused:
a number whose unit must be guessed is the classic way to a wrong life.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from examples.fatigue.fault import BadInput

RATIO = {"%": 0.01, "-": 1.0}
STRESS = {"MPa": 1.0, "N/mm2": 1.0, "GPa": 1000.0}

MAX_FILE_BYTES = 4096
UNIT = re.compile(r"\[([^\[\]]*)\]")


@dataclass(frozen=True, slots=True)
class Tensile:
    """Reduction of area (a ratio, 0 to 1), tensile strength and yield strength (MPa)."""

    reduction_of_area: float
    tensile_strength: float
    yield_strength: float

    def __post_init__(self) -> None:
        """Refuse what no steel can be: the estimates below were fitted to steels."""
        if not 0.02 <= self.reduction_of_area <= 0.95:
            raise BadInput(f"reduction of area {self.reduction_of_area:g} is not in 0.02…0.95")
        if not 200.0 <= self.tensile_strength <= 3000.0:
            raise BadInput(f"tensile strength {self.tensile_strength:g} MPa is not in 200…3000")
        if not 0.3 * self.tensile_strength <= self.yield_strength <= self.tensile_strength:
            raise BadInput(
                f"yield strength {self.yield_strength:g} MPa is not 0.3…1 of the tensile strength"
            )

    @property
    def fracture_ductility(self) -> float:
        """True fracture strain, ln 1/(1 - RA)."""
        return -math.log1p(-self.reduction_of_area)


def read_property(path: Path, units: dict[str, float]) -> float:
    """Read the one number of a file, in the base unit (`units` maps a unit to its factor)."""
    try:
        text = path.read_bytes()[: MAX_FILE_BYTES + 1].decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path.name}: cannot be read as a text file") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    comments = [line for line in lines if line.startswith("#")]
    numbers = [line for line in lines if not line.startswith("#")]
    if len(text) > MAX_FILE_BYTES or len(numbers) != 1:
        raise BadInput(f"{path.name}: exactly one line with one number is expected")
    return _number(path.name, numbers[0]) * _factor(path.name, comments, units)


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise BadInput(f"{name}: not a number") from error
    if not math.isfinite(value):
        raise BadInput(f"{name}: not a finite number")
    return value


def _factor(name: str, comments: list[str], units: dict[str, float]) -> float:
    named = [unit for line in comments for unit in UNIT.findall(line)]
    if len(named) != 1 or named[0] not in units:
        raise BadInput(f"{name}: a comment must name one unit of {', '.join(units)} in brackets")
    return units[named[0]]


def read_tensile(area: Path, tensile: Path, proof: Path) -> Tensile:
    """Read the three property files: reduction of area, tensile strength, yield strength."""
    return Tensile(
        reduction_of_area=read_property(area, RATIO),
        tensile_strength=read_property(tensile, STRESS),
        yield_strength=read_property(proof, STRESS),
    )
