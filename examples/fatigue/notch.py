"""The notch: closed-form stress concentration, one load cycle at the root, and its checks.

A cycle is read off one loading path. After the first cycles, the branches of a stabilised
material's loop are the cyclic curve doubled (G. Masing 1926, Proc. 2nd Int. Congr. Appl. Mech.,
332), so that the state at the load's amplitude is the amplitude of stress and strain, and the state
at the load's maximum is the loop's tip. Nominal stresses are those of the net section.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from examples.fatigue.curve import RambergOsgood
from examples.fatigue.fault import BadInput, Unsolved
from examples.fatigue.plasticity import Material
from examples.fatigue.solution import Solution, Solved
from examples.fatigue.specimen import Plate

ALONG = 1
"""Index of the component along the load."""


@dataclass(frozen=True, slots=True)
class LoadCycle:
    """Largest nominal stress of the net section (MPa), and the smallest as a ratio of it."""

    max_stress: float
    ratio: float

    def __post_init__(self) -> None:
        """Refuse a cycle without tension or without a change."""
        if not 0.0 < self.max_stress <= 2000.0 or not -1.0 <= self.ratio <= 0.9:
            raise BadInput("the load cycle is out of its range")

    @property
    def amplitude(self) -> float:
        """Half the difference of the largest and the smallest nominal stress (MPa)."""
        return 0.5 * self.max_stress * (1.0 - self.ratio)


@dataclass(frozen=True, slots=True)
class LoadPath:
    """Gross tractions (MPa): an elastic one to read Kt from, the amplitude, the maximum."""

    elastic: float
    amplitude: float
    maximum: float

    @property
    def ascending(self) -> tuple[float, ...]:
        """The different tractions in the order of loading."""
        return tuple(sorted({self.elastic, self.amplitude, self.maximum}))


@dataclass(frozen=True, slots=True)
class Check:
    """A figure and the bounds between which it must lie."""

    name: str
    value: float
    low: float
    high: float

    @property
    def passed(self) -> bool:
        """Whether the figure lies between its bounds; not a number does not."""
        return self.low <= self.value <= self.high


@dataclass(frozen=True, slots=True)
class Cycle:
    """The fields of one solved cycle: the elastic state, the amplitudes, the loop's tip."""

    elastic: Solution
    amplitude: Solution
    maximum: Solution


def heywood_kt(plate: Plate) -> float:
    """Stress concentration of a hole in a strip in tension, on the net section.

    R. B. Heywood, Designing by Photoelasticity (1952): 2 + (1 - d/W)^3; within a few per cent of
    R. C. J. Howland, Phil. Trans. R. Soc. A 229 (1930) 49.
    """
    return 2.0 + (1.0 - plate.radius / plate.half_width) ** 3


def net_share(plate: Plate) -> float:
    """Net section as a share of the gross section."""
    return 1.0 - plate.radius / plate.half_width


def load_path(cycle: LoadCycle, plate: Plate, material: Material) -> LoadPath:
    """Return the tractions of the analysis; the elastic one stays below the first yield."""
    first_yield = float(material.yield_stress(np.array(0.0))) / heywood_kt(plate)
    share = net_share(plate)
    elastic = min(0.5 * first_yield, 0.5 * cycle.amplitude)
    return LoadPath(elastic * share, cycle.amplitude * share, cycle.max_stress * share)


def read_cycle(solved: Solved, path: LoadPath) -> Cycle:
    """Find the three states of a path among the solutions."""
    by_traction = {solution.traction: solution for solution in solved.solutions}
    return Cycle(by_traction[path.elastic], by_traction[path.amplitude], by_traction[path.maximum])


def numeric_kt(solved: Solved, elastic: Solution) -> float:
    """Stress concentration that the solver found, on the net section."""
    nominal = elastic.traction / net_share(solved.specimen.plate)
    return float(elastic.stress[solved.specimen.root, ALONG]) / nominal


def check(solved: Solved, cycle: Cycle, curve: RambergOsgood) -> tuple[Check, ...]:
    """Compare the solution with closed forms; the caller decides with `require`.

    The notch strain of a plane-stress root lies between elastic behaviour, which it exceeds, and
    Neuber's rule, an upper estimate; both bounds leave 10 % for the mesh.
    """
    plate, root = solved.specimen.plate, solved.specimen.root
    reference = heywood_kt(plate)
    peak = cycle.maximum
    nominal = peak.traction / net_share(plate)
    strain = float(peak.strain[root, ALONG])
    stress = float(peak.stress[root, ALONG])
    return (
        Check("kt_over_heywood", numeric_kt(solved, cycle.elastic) / reference, 0.95, 1.05),
        Check("plastic_strain_at_elastic_load", float(cycle.elastic.plastic_strain.max()), 0, 1e-9),
        Check("strain_over_elastic", strain * curve.modulus / (reference * nominal), 0.9, 20.0),
        Check("strain_over_neuber", strain / curve.neuber_strain(reference, nominal), 0.5, 1.1),
        Check("root_stress_over_curve", stress / float(curve.stress(np.array(strain))), 0.93, 1.07),
    )


def require(checks: tuple[Check, ...]) -> None:
    """Raise `Unsolved` unless every check passed."""
    failed = [item for item in checks if not item.passed]
    if failed:
        said = "; ".join(f"{c.name} {c.value:.4g} not in {c.low:g}…{c.high:g}" for c in failed)
        raise Unsolved(f"the result disagrees with its reference: {said}")
