"""Stress-strain curves and strain-life lines, estimated from a tensile test.

Every formula names its source; nothing here is secret. What a site adds (how far its material
has stabilised, its own strength factor) is in `site_model`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from examples.fatigue.tensile import Tensile

Array = npt.NDArray[np.float64]

PROOF_STRAIN = 0.002
"""Plastic strain at which the yield strength of a tensile test is read."""


@dataclass(frozen=True, slots=True)
class RambergOsgood:
    """Strain = s/E + (s/K)^(1/n); E and K in MPa (Ramberg & Osgood 1943, NACA TN 902)."""

    modulus: float
    strength: float
    exponent: float

    def plastic_strain(self, stress: Array) -> Array:
        """Plastic part of the strain at a stress (any shape, MPa, not negative)."""
        return np.asarray((stress / self.strength) ** (1.0 / self.exponent), dtype=np.float64)

    def strain(self, stress: Array) -> Array:
        """Total strain at a stress (any shape, MPa, not negative)."""
        return stress / self.modulus + self.plastic_strain(stress)

    def stress(self, strain: Array) -> Array:
        """Stress at a total strain (any shape, not negative), to a relative 1e-12.

        The strain is convex in the stress, so that Newton's steps from above (the lower of the
        two bounds that elasticity and plasticity alone give) fall monotonically on the root.
        """
        strain = np.asarray(strain, dtype=np.float64)
        stress = np.minimum(self.modulus * strain, self.strength * strain**self.exponent)
        floor = 1e-9
        for _ in range(100):
            plastic = self.plastic_strain(stress)
            slope = 1.0 / self.modulus + plastic / (self.exponent * np.maximum(stress, floor))
            step = (stress / self.modulus + plastic - strain) / slope
            stress = np.maximum(stress - step, 0.0)
            if np.all(np.abs(step) <= 1e-12 * np.maximum(stress, floor)):
                break
        return stress

    def neuber_strain(self, concentration: float, nominal: float) -> float:
        """Notch strain by Neuber's rule, stress x strain = Kt^2 S e(S), by bisection (S in MPa).

        H. Neuber, "Theory of stress concentration for shear-strained prismatical bodies with
        arbitrary nonlinear stress-strain law", J. Appl. Mech. 28 (1961) 544; with the nominal
        strain e on the curve, so that it holds for a yielding net section: T. Seeger, P. Heuler,
        "Generalized application of Neuber's rule", J. Test. Eval. 8 (1980) 199.
        """
        energy = concentration**2 * nominal * float(self.strain(np.array(nominal)))
        low, high = 0.0, concentration * nominal * (1.0 + 1e-9)
        for _ in range(80):
            stress = 0.5 * (low + high)
            if stress * float(self.strain(np.array(stress))) < energy:
                low = stress
            else:
                high = stress
        return energy / high


@dataclass(frozen=True, slots=True)
class StrainLife:
    """Strain amplitude = sf/E (2N)^b + ef (2N)^c, E and sf in MPa.

    O. H. Basquin, Proc. ASTM 10 (1910) 625; L. F. Coffin, Trans. ASME 76 (1954) 931;
    S. S. Manson, NACA TN 2933 (1953).
    """

    modulus: float
    strength: float
    strength_exponent: float
    ductility: float
    ductility_exponent: float

    def amplitude(self, reversals: float, mean_stress: float = 0.0) -> float:
        """Strain amplitude endured for `reversals` (2N) at a mean stress (Morrow's correction).

        J. Morrow, "Fatigue properties of metals", Fatigue Design Handbook, SAE AE-4 (1968) 21.
        """
        elastic = (self.strength - mean_stress) / self.modulus
        return elastic * math.pow(reversals, self.strength_exponent) + self.ductility * math.pow(
            reversals, self.ductility_exponent
        )

    def swt(self, reversals: float) -> float:
        """Maximum stress x strain amplitude (MPa) endured for `reversals` (2N).

        K. N. Smith, P. Watson, T. H. Topper, J. Mater. 5 (1970) 767.
        """
        return (
            self.strength * math.pow(reversals, self.strength_exponent) * self.amplitude(reversals)
        )

    def cyclic(self) -> RambergOsgood:
        """Return the cyclic curve compatible with both lines: n = b/c, K = sf / ef^n.

        J. Morrow, "Cyclic plastic strain energy and fatigue of metals", ASTM STP 378 (1965) 45.
        """
        exponent = self.strength_exponent / self.ductility_exponent
        return RambergOsgood(self.modulus, self.strength / self.ductility**exponent, exponent)


def modified_universal_slopes(tensile: Tensile, modulus: float) -> StrainLife:
    """Estimate the strain-life lines from tensile strength and reduction of area (modulus in MPa).

    U. Muralidharan, S. S. Manson, "A modified universal slopes equation for estimation of fatigue
    characteristics of metals", J. Eng. Mater. Technol. 110 (1988) 55. Printed there for ranges and
    cycles (1.17 and 0.0266); here for amplitudes and reversals.
    """
    ratio = tensile.tensile_strength / modulus
    return StrainLife(
        modulus=modulus,
        strength=0.623 * modulus * ratio**0.832,
        strength_exponent=-0.09,
        ductility=0.0196 * tensile.fracture_ductility**0.155 * ratio**-0.53,
        ductility_exponent=-0.56,
    )


def monotonic(tensile: Tensile, modulus: float) -> RambergOsgood:
    """Return the curve through the 0.2 % proof point and the true fracture point (modulus in MPa).

    True fracture stress = tensile strength x (1 + fracture ductility): S. S. Manson, "Fatigue: a
    complex subject - some simple approximations", Exp. Mech. 5 (1965) 193.
    """
    fracture_stress = tensile.tensile_strength * (1.0 + tensile.fracture_ductility)
    exponent = math.log(fracture_stress / tensile.yield_strength) / math.log(
        tensile.fracture_ductility / PROOF_STRAIN
    )
    return RambergOsgood(modulus, fracture_stress / tensile.fracture_ductility**exponent, exponent)


def cyclic_tendency(tensile: Tensile) -> str:
    """Say whether a steel hardens or softens under cycling: `hardens`, `softens` or `mixed`.

    R. W. Smith, M. H. Hirschberg, S. S. Manson, NASA TN D-1574 (1963): hardens when the tensile
    strength is above 1.4 yield strengths, softens below 1.2.
    """
    ratio = tensile.tensile_strength / tensile.yield_strength
    if ratio > 1.4:
        return "hardens"
    return "softens" if ratio < 1.2 else "mixed"
