"""What a solver answers: the fields of one load, at the nodes of the specimen.

Both solvers give the same thing, so that nothing after them knows which one ran.
"""

from __future__ import annotations

from dataclasses import dataclass

from examples.fatigue.curve import Array
from examples.fatigue.plasticity import von_mises
from examples.fatigue.specimen import Specimen


@dataclass(frozen=True, slots=True)
class Solution:
    """Fields at one load: gross traction (MPa), stress and strain (n, 3), plastic strain (n,).

    Components are [xx, yy, xy]; the shear strain is the engineering one; stresses in MPa.
    """

    traction: float
    stress: Array
    strain: Array
    plastic_strain: Array

    @property
    def von_mises(self) -> Array:
        """Von Mises stress (n,), MPa."""
        return von_mises(self.stress)


@dataclass(frozen=True, slots=True)
class Solved:
    """One solution per load that was asked for, and the solver's name and version."""

    solver: str
    specimen: Specimen
    solutions: tuple[Solution, ...]
