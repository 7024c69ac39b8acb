"""Fatigue life of the notched specimen by the local strain approach.

The strain-life lines are estimated from the tensile test (`curve.modified_universal_slopes`); the
load at the notch comes from the stress distribution that the site gave back. Lives are cycles to
crack initiation; the estimate scatters by a factor of about three either way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from examples.fatigue.curve import StrainLife, cyclic_tendency, modified_universal_slopes
from examples.fatigue.fault import BadInput
from examples.fatigue.outcome import Station
from examples.fatigue.tensile import Tensile

STEEL_MODULUS = 206_000.0
"""The usual value of Young's modulus of carbon and low-alloy steels, MPa; the site's is its own."""

SHORTEST, LONGEST = 0.5, 1e9
"""Cycles: half a cycle is a tensile test; beyond the other the lines are only an extrapolation."""

ENDURANCE = 1e7
"""Cycles up to which the strain-life lines were fitted."""


class MeanStress(StrEnum):
    """The correction for the mean stress: Smith, Watson and Topper's or Morrow's."""

    SWT = "swt"
    MORROW = "morrow"


@dataclass(frozen=True, slots=True)
class Life:
    """Cycles to crack initiation at the weakest station, and what they were computed from."""

    cycles: float
    at: Station
    lines: StrainLife
    correction: MeanStress

    @property
    def extrapolated(self) -> bool:
        """Whether the life is longer than the lines are known."""
        return self.cycles > ENDURANCE


def cycles_to_failure(lines: StrainLife, at: Station, correction: MeanStress) -> float:
    """Solve the strain-life equation at one station for the cycles N, by bisection of log N.

    The endured damage parameter falls with N; a load above or below the whole curve gives
    SHORTEST or LONGEST.
    """
    low, high = math.log(SHORTEST), math.log(LONGEST)
    if _endures(lines, at, correction, LONGEST):
        return LONGEST
    if not _endures(lines, at, correction, SHORTEST):
        return SHORTEST
    while high - low > 1e-10:
        middle = 0.5 * (low + high)
        if _endures(lines, at, correction, math.exp(middle)):
            low = middle
        else:
            high = middle
    return math.exp(low)


def _endures(lines: StrainLife, at: Station, correction: MeanStress, cycles: float) -> bool:
    reversals = 2.0 * cycles
    if correction is MeanStress.SWT:
        return max(at.stress_yy_max_mpa, 0.0) * at.strain_yy_amplitude <= lines.swt(reversals)
    mean = at.stress_yy_max_mpa - at.stress_yy_amplitude_mpa
    return at.strain_yy_amplitude <= lines.amplitude(reversals, mean)


def predict(tensile: Tensile, places: tuple[Station, ...], correction: MeanStress) -> Life:
    """Find the weakest station and its life."""
    lines = modified_universal_slopes(tensile, STEEL_MODULUS)
    lives = [cycles_to_failure(lines, place, correction) for place in places]
    shortest = min(range(len(lives)), key=lives.__getitem__)
    return Life(lives[shortest], places[shortest], lines, correction)


def require_local(tensile: Tensile, net_stress: float) -> None:
    """Refuse a load that yields the whole net section: the approach knows local plasticity only."""
    if net_stress >= tensile.yield_strength:
        raise BadInput(
            f"the net section stress {net_stress:g} MPa is not below the yield strength "
            f"{tensile.yield_strength:g} MPa"
        )


def report(life: Life, tensile: Tensile) -> dict[str, object]:
    """Return the life as the object of `life.json`; units are in the names."""
    return {
        "life_cycles": float(f"{life.cycles:.6g}"),
        "extrapolated": life.extrapolated,
        "mean_stress_correction": life.correction.value,
        "distance_from_notch_mm": life.at.distance_mm,
        "strain_amplitude": life.at.strain_yy_amplitude,
        "stress_max_mpa": life.at.stress_yy_max_mpa,
        "stress_mean_mpa": round(life.at.stress_yy_max_mpa - life.at.stress_yy_amplitude_mpa, 3),
        "fatigue_strength_coefficient_mpa": round(life.lines.strength, 3),
        "fatigue_strength_exponent": life.lines.strength_exponent,
        "fatigue_ductility_coefficient": round(life.lines.ductility, 6),
        "fatigue_ductility_exponent": life.lines.ductility_exponent,
        "cyclic_tendency": cyclic_tendency(tensile),
        "source": "Muralidharan and Manson (1988), modified universal slopes",
    }
