"""The return mapping at single points, against closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from examples.fatigue.curve import Array, RambergOsgood
from examples.fatigue.plasticity import OFFSET, Material, State, respond, von_mises

MATERIAL = Material(RambergOsgood(206_000.0, 1800.0, 0.157), 0.3)

strains = arrays.arrays(np.float64, (4, 3), elements=st.floats(-0.02, 0.02))


def uniaxial_strain(stress: float) -> Array:
    """Strain [xx, yy, xy] of a bar pulled along y: closed form of the same law."""
    plastic = max((stress / 1800.0) ** (1 / 0.157) - OFFSET, 0.0)
    elastic = stress / 206_000.0
    return np.array([-0.3 * elastic - 0.5 * plastic, elastic + plastic, 0.0])


@pytest.mark.parametrize("stress", [100.0, 330.0, 600.0, 900.0, 1200.0])
def test_a_bar_in_tension_answers_the_closed_form(stress: float) -> None:
    response = respond(MATERIAL, uniaxial_strain(stress)[None], State.virgin((1,)))
    assert response.stress[0] == pytest.approx(np.array([0.0, stress, 0.0]), abs=1e-5 * stress)


def test_many_small_steps_end_where_one_large_one_does() -> None:
    state = State.virgin((1,))
    stress = np.zeros((1, 3))
    for level in np.linspace(0.0, 1000.0, 60)[1:]:
        response = respond(MATERIAL, uniaxial_strain(float(level))[None], state)
        state, stress = response.state, response.stress
    assert stress[0, 1] == pytest.approx(1000.0, rel=1e-6)


def test_unloading_is_elastic() -> None:
    loaded = respond(MATERIAL, uniaxial_strain(900.0)[None], State.virgin((1,)))
    relief = 100.0 / 206_000.0 * np.array([-0.3, 1.0, 0.0])
    back = respond(MATERIAL, uniaxial_strain(900.0)[None] - relief, loaded.state)
    assert back.stress[0, 1] == pytest.approx(800.0, rel=1e-6)
    assert back.state.equivalent == pytest.approx(loaded.state.equivalent)


def test_pure_shear_yields_at_the_von_mises_stress() -> None:
    response = respond(MATERIAL, np.array([[0.0, 0.0, 0.03]]), State.virgin((1,)))
    flow = MATERIAL.yield_stress(response.state.equivalent)
    assert np.sqrt(3.0) * response.stress[0, 2] == pytest.approx(float(flow[0]), rel=1e-8)


@given(strain=strains)
@settings(max_examples=60, deadline=None)
def test_no_stress_is_outside_the_yield_surface(strain: Array) -> None:
    """Kills: a lost factor in the consistency condition, a flow that is not scaled by 2/3."""
    response = respond(MATERIAL, strain, State.virgin((4,)))
    flow = MATERIAL.yield_stress(response.state.equivalent)
    over = von_mises(response.stress) - flow
    assert np.all(over <= 1e-8 * flow)
    assert np.all(np.abs(over[response.state.equivalent > 0]) <= 1e-8 * 2000.0)


@given(strain=strains)
@settings(max_examples=60, deadline=None)
def test_elastic_and_plastic_strain_add_up(strain: Array) -> None:
    """Kills: a plastic strain that is stored with another direction or factor than the stress's."""
    response = respond(MATERIAL, strain, State.virgin((4,)))
    elastic = response.stress @ np.linalg.inv(MATERIAL.stiffness())
    assert elastic + response.state.plastic == pytest.approx(strain, abs=1e-12)


@given(strain=strains)
@settings(max_examples=60, deadline=None)
def test_the_tangent_is_the_derivative_of_the_stress(strain: Array) -> None:
    """Kills: every term of the consistent tangent (compared with central differences)."""
    before = respond(MATERIAL, 0.5 * strain, State.virgin((4,))).state
    response = respond(MATERIAL, strain, before)
    overstress = von_mises((strain - before.plastic) @ MATERIAL.stiffness())
    kinked = np.abs(overstress / MATERIAL.yield_stress(before.equivalent) - 1.0) < 1e-2
    for column in range(3):
        nudge = np.zeros(3)
        nudge[column] = 1e-8
        above, below = (respond(MATERIAL, strain + s * nudge, before).stress for s in (1, -1))
        slope = (above - below) / 2e-8
        gap = np.abs(slope - response.tangent[..., column]).max(axis=-1)
        assert np.all(gap[~kinked] <= 1e-3 * 206_000.0)
