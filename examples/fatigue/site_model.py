"""The site's secret material model: a few coefficients that the site measured and does not give.

`stabilised` says how far the material has gone at half life from its monotonic curve (0) to the
published estimate of the stabilised cyclic curve (1): a geometric mean of the two power laws, hence
a power law itself. `strength_factor` multiplies the stress. Both are this demo's own invention.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from examples.fatigue.curve import RambergOsgood, modified_universal_slopes, monotonic
from examples.fatigue.fault import BadInput
from examples.fatigue.tensile import Tensile

FILE_NAME = "material_model.toml"

BOUNDS = {
    "modulus_mpa": (50_000.0, 400_000.0),
    "poisson_ratio": (0.0, 0.49),
    "stabilised": (0.0, 1.0),
    "strength_factor": (0.5, 1.5),
}


@dataclass(frozen=True, slots=True)
class SiteModel:
    """The site's coefficients: modulus in MPa, the others are plain numbers."""

    modulus: float
    poisson: float
    stabilised: float
    strength_factor: float

    def cyclic(self, tensile: Tensile) -> RambergOsgood:
        """Return the cyclic curve of the site's material with the given tensile properties."""
        first = monotonic(tensile, self.modulus)
        last = modified_universal_slopes(tensile, self.modulus).cyclic()
        share = self.stabilised
        return RambergOsgood(
            modulus=self.modulus,
            strength=self.strength_factor * first.strength ** (1.0 - share) * last.strength**share,
            exponent=(1.0 - share) * first.exponent + share * last.exponent,
        )


def to_toml(model: SiteModel, canary: str) -> str:
    """Write the model as the text of its file."""
    return (
        f"# SECRET material model. Canary: {canary}\n"
        f"modulus_mpa = {model.modulus!r}\n"
        f"poisson_ratio = {model.poisson!r}\n"
        f"stabilised = {model.stabilised!r}\n"
        f"strength_factor = {model.strength_factor!r}\n"
    )


def read_site_model(path: Path) -> SiteModel:
    """Read the model; a missing, unknown or impossible coefficient is `BadInput`."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput("the material model cannot be read") from error
    if set(values) != set(BOUNDS):
        raise BadInput("the material model has missing or unknown coefficients")
    for name, (low, high) in BOUNDS.items():
        value = values[name]
        if not isinstance(value, float) or not low <= value <= high:
            raise BadInput(f"the material model's {name} is out of its range")
    return SiteModel(
        modulus=values["modulus_mpa"],
        poisson=values["poisson_ratio"],
        stabilised=values["stabilised"],
        strength_factor=values["strength_factor"],
    )
