"""What a solver is given: the specimen, its material, and the text of the mesh file."""

from __future__ import annotations

from dataclasses import dataclass

from examples.fatigue.plasticity import Material
from examples.fatigue.specimen import Specimen


@dataclass(frozen=True, slots=True)
class Model:
    """A specimen of a material; `mesh` is the file that the specimen was read from."""

    mesh: str
    specimen: Specimen
    material: Material
