"""J2 plasticity with isotropic hardening in plane stress: one implicit step, many points at once.

The projected return mapping of J. C. Simo and R. L. Taylor, "A return mapping algorithm for plane
stress elastoplasticity", Int. J. Numer. Methods Eng. 22 (1986) 649. Vectors are [xx, yy, xy] with
engineering shear strain; the leading axes of all arrays are the points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from examples.fatigue.curve import Array, RambergOsgood
from examples.fatigue.fault import Unsolved

PROJECTION = np.array([[2.0, -1.0, 0.0], [-1.0, 2.0, 0.0], [0.0, 0.0, 6.0]]) / 3.0
"""P: (3/2) s.P.s is the square of the von Mises stress; the plastic flow is along P.s."""

OFFSET = 2e-5
"""Plastic strain at which yielding begins. Ramberg-Osgood has no elastic range; leaving out this
much strain gives it one (the law of H. W. Swift, J. Mech. Phys. Solids 1 (1952) 1)."""


@dataclass(frozen=True, slots=True)
class Material:
    """Isotropic elasticity (curve.modulus in MPa, Poisson's ratio) and the hardening curve."""

    curve: RambergOsgood
    poisson: float

    def yield_stress(self, plastic: Array) -> Array:
        """Flow stress (MPa) at an equivalent plastic strain."""
        return np.asarray(self.curve.strength * (plastic + OFFSET) ** self.curve.exponent)

    def slope(self, plastic: Array) -> Array:
        """Hardening modulus: derivative of the flow stress by the plastic strain (MPa)."""
        return self.curve.exponent * self.yield_stress(plastic) / (plastic + OFFSET)

    def stiffness(self) -> Array:
        """Plane-stress elastic stiffness (3, 3), MPa."""
        nu = self.poisson
        unit = np.array([[1.0, nu, 0.0], [nu, 1.0, 0.0], [0.0, 0.0, 0.5 * (1.0 - nu)]])
        return unit * (self.curve.modulus / (1.0 - nu**2))


@dataclass(frozen=True, slots=True)
class State:
    """History of the points: plastic strain (..., 3) and its equivalent (...)."""

    plastic: Array
    equivalent: Array

    @staticmethod
    def virgin(shape: tuple[int, ...]) -> State:
        """Return the state of points that have never yielded."""
        return State(np.zeros((*shape, 3)), np.zeros(shape))


@dataclass(frozen=True, slots=True)
class Response:
    """Stress (..., 3) and consistent tangent (..., 3, 3) in MPa, and the new state."""

    stress: Array
    tangent: Array
    state: State


def von_mises(stress: Array) -> Array:
    """Von Mises stress of plane stresses (..., 3)."""
    squared = 1.5 * np.einsum("...i,ij,...j->...", stress, PROJECTION, stress)
    return np.sqrt(np.asarray(squared, dtype=np.float64))


def respond(material: Material, strain: Array, state: State) -> Response:
    """Return stress, tangent and new state of points that are strained to `strain` (..., 3)."""
    elastic = material.stiffness()
    trial = (strain - state.plastic) @ elastic
    flow = _flow(material, trial, state.equivalent)
    compliance = np.linalg.inv(elastic)
    softened = compliance + flow[..., None, None] * PROJECTION
    algorithmic = np.asarray(np.linalg.inv(softened), dtype=np.float64)
    stress = np.einsum("...ij,...j->...i", algorithmic, trial @ compliance)
    direction = stress @ PROJECTION
    grown = (2.0 / 3.0) * flow * von_mises(stress)
    new = State(state.plastic + flow[..., None] * direction, state.equivalent + grown)
    return Response(stress, _tangent(material, algorithmic, stress, flow, new), new)


def _flow(material: Material, trial: Array, equivalent: Array) -> Array:
    """Solve the scalar consistency condition for the plastic multiplier (1/MPa).

    The overstress is convex and falls with the multiplier, so that Newton's steps from zero rise
    monotonically to the root; an elastic point keeps zero.
    """
    modulus, nu = material.curve.modulus, material.poisson
    swelling, shearing = modulus / (3.0 * (1.0 - nu)), modulus / (1.0 + nu)
    mean = 0.5 * (trial[..., 0] + trial[..., 1])
    half = 0.5 * (trial[..., 1] - trial[..., 0])
    shear = 3.0 * (half**2 + trial[..., 2] ** 2)
    flow = np.zeros_like(mean)
    for _ in range(100):
        by_mean, by_shear = 1.0 + swelling * flow, 1.0 + shearing * flow
        mises = np.sqrt((mean / by_mean) ** 2 + shear / by_shear**2)
        plastic = equivalent + (2.0 / 3.0) * flow * mises
        over = mises - material.yield_stress(plastic)
        active = over > 1e-10 * material.yield_stress(plastic)
        if not active.any():
            return flow
        safe = np.where(mises > 0.0, mises, 1.0)
        fall = -(mean**2 * swelling / by_mean**3 + shear * shearing / by_shear**3) / safe
        rate = fall - material.slope(plastic) * (2.0 / 3.0) * (mises + flow * fall)
        flow = flow - np.where(active, over / np.where(active, rate, -1.0), 0.0)
    raise Unsolved("the return mapping did not converge")


def _tangent(
    material: Material, algorithmic: Array, stress: Array, flow: Array, state: State
) -> Array:
    """Consistent tangent (..., 3, 3), Simo & Hughes, Computational Inelasticity (1998), box 3.3."""
    direction = stress @ PROJECTION
    normal = np.einsum("...ij,...j->...i", algorithmic, direction)
    slope = material.slope(state.equivalent)
    hardening = (2.0 / 3.0) * slope * np.einsum("...i,...i->...", stress, direction)
    hardening = hardening / (1.0 - (2.0 / 3.0) * slope * flow)
    denominator = np.einsum("...i,...i->...", direction, normal) + hardening
    yielding = flow > 0.0
    factor = np.where(yielding, 1.0 / np.where(yielding, denominator, 1.0), 0.0)
    outer = np.einsum("...,...i,...j->...ij", factor, normal, normal)
    return algorithmic - np.asarray(outer, dtype=np.float64)
