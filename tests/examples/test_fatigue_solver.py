"""Both solvers, against closed forms and against each other. CalculiX must be installed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from examples.fatigue import ccx, fem
from examples.fatigue.curve import RambergOsgood
from examples.fatigue.fault import BadInput, Unsolved
from examples.fatigue.model import Model
from examples.fatigue.notch import (
    LoadCycle,
    check,
    heywood_kt,
    load_path,
    net_share,
    numeric_kt,
    read_cycle,
    require,
)
from examples.fatigue.plasticity import OFFSET, Material
from examples.fatigue.solution import Solved
from examples.fatigue.specimen import Plate, Specimen, make_specimen, to_inp

PLATE = Plate(3.0, 12.0, 30.0)
MATERIAL = Material(RambergOsgood(206_000.0, 1800.0, 0.157), 0.3)
LOAD = LoadCycle(450.0, 0.0)
PATH = load_path(LOAD, PLATE, MATERIAL)

Solve = Callable[[Model, tuple[float, ...]], Solved]


def model_of(plate: Plate, fineness: int) -> Model:
    specimen = make_specimen(plate, fineness)
    return Model(to_inp(specimen, "canary-3"), specimen, MATERIAL)


def solver_named(name: str, work: Path) -> Solve:
    if name == "scikit-fem":
        return fem.solve
    program = ccx.find_ccx()
    assert program is not None, "these tests need CalculiX: install the package calculix-ccx"
    return lambda model, tractions: ccx.solve(program, work, model, tractions)


@pytest.fixture(params=["calculix", "scikit-fem"])
def solve(request: pytest.FixtureRequest, tmp_path: Path) -> Solve:
    return solver_named(request.param, tmp_path)


@pytest.fixture(scope="module", params=["calculix", "scikit-fem"])
def solved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Solved:
    """Solve the whole cycle once per solver."""
    return solver_named(request.param, tmp_path_factory.mktemp("solved"))(
        model_of(PLATE, 8), PATH.ascending
    )


def kt_error(solve: Solve, plate: Plate, fineness: int) -> float:
    path = load_path(LOAD, plate, MATERIAL)
    solved = solve(model_of(plate, fineness), (path.elastic,))
    return numeric_kt(solved, solved.solutions[0]) / heywood_kt(plate) - 1.0


@pytest.mark.parametrize("share", [0.15, 0.25, 0.35])
def test_the_stress_concentration_is_the_closed_form_s(solve: Solve, share: float) -> None:
    assert abs(kt_error(solve, Plate(12.0 * share, 12.0, 30.0), 8)) < 0.03


def test_a_finer_mesh_moves_the_stress_concentration_less_and_less(solve: Solve) -> None:
    found = [kt_error(solve, PLATE, fineness) for fineness in (3, 6, 12)]
    assert 0.03 > found[0] > found[1] > found[2] > 0.0
    assert found[1] - found[2] < 0.8 * (found[0] - found[1])


def test_the_heywood_formula_agrees_with_the_fit_to_howland_s_series() -> None:
    """Roark's Formulas for Stress and Strain (1989), table 37: a cubic in d/W, net section."""
    for share in (0.1, 0.2, 0.3, 0.4):
        fit = 3.0 - 3.13 * share + 3.66 * share**2 - 1.53 * share**3
        assert heywood_kt(Plate(share, 1.0, 3.0)) == pytest.approx(fit, rel=0.02)


def test_the_cycle_passes_every_check(solved: Solved) -> None:
    checks = check(solved, read_cycle(solved, PATH), MATERIAL.curve)
    require(checks)
    assert len(checks) == 5


def test_a_wrong_result_fails_the_checks() -> None:
    solved = fem.solve(model_of(PLATE, 4), PATH.ascending)
    doubled = tuple(
        replace(s, stress=1.2 * s.stress, strain=1.5 * s.strain) for s in solved.solutions
    )
    wrong = replace(solved, solutions=doubled)
    checks = check(wrong, read_cycle(wrong, PATH), MATERIAL.curve)
    assert {item.name for item in checks if not item.passed} == {
        "kt_over_heywood",
        "strain_over_neuber",
        "root_stress_over_curve",
    }
    with pytest.raises(Unsolved, match="kt_over_heywood"):
        require(checks)


def test_the_net_section_carries_the_load(solved: Solved) -> None:
    """Equilibrium: the stress along the ligament adds up to the pull on the end."""
    nodes = solved.specimen.ligament
    for solution in solved.solutions:
        carried = np.trapezoid(solution.stress[nodes, 1], solved.specimen.nodes[nodes, 0])
        assert carried == pytest.approx(solution.traction * 12.0, rel=0.01)


def test_the_edge_of_the_hole_is_free_of_stress_across_it(solved: Solved) -> None:
    for solution in solved.solutions:
        across, along = solution.stress[solved.specimen.root, :2]
        assert abs(across) < 0.02 * along


def test_both_solvers_find_the_same_notch(tmp_path: Path) -> None:
    model = model_of(PLATE, 6)
    theirs = solver_named("calculix", tmp_path)(model, PATH.ascending)
    ours = fem.solve(model, PATH.ascending)
    for one, other in zip(ours.solutions, theirs.solutions, strict=True):
        root = model.specimen.root
        assert one.stress[root, 1] == pytest.approx(other.stress[root, 1], rel=0.03)
        assert one.strain[root, 1] == pytest.approx(other.strain[root, 1], rel=0.03)
        assert one.strain == pytest.approx(other.strain, abs=0.05 * one.strain.max())
        spread = np.abs(one.von_mises - other.von_mises).mean()
        assert spread < 0.01 * one.von_mises.max()


def test_a_plate_in_plain_tension_follows_the_curve_and_unloads_elastically() -> None:
    """A rectangle without a hole: every point of the solver answers the uniaxial law."""
    grid = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0], [1, 0.5], [0.5, 1], [0, 0.5]])
    specimen = Specimen(grid * np.array([2.0, 4.0]), np.arange(8).reshape(1, 8))
    loaded, relieved = fem.solve(Model("", specimen, MATERIAL), (800.0, 500.0)).solutions
    strain = float(MATERIAL.curve.strain(np.array(800.0))) - OFFSET
    assert loaded.stress[:, 1] == pytest.approx(np.full(8, 800.0), rel=1e-6)
    assert loaded.strain[:, 1] == pytest.approx(np.full(8, strain), rel=1e-5)
    assert relieved.stress[:, 1] == pytest.approx(np.full(8, 500.0), rel=1e-6)
    assert relieved.strain[:, 1] == pytest.approx(np.full(8, strain - 300.0 / 206_000.0), rel=1e-5)


def test_an_elastic_path_is_proportional() -> None:
    path = load_path(LoadCycle(1.0, 0.0), PLATE, MATERIAL)
    solved = fem.solve(model_of(PLATE, 4), path.ascending)
    first, last = solved.solutions[0], solved.solutions[-1]
    factor = last.traction / first.traction
    assert last.stress == pytest.approx(factor * first.stress, rel=1e-6, abs=1e-9)
    assert last.plastic_strain.max() == 0.0


def test_a_fully_reversed_cycle_has_its_amplitude_at_its_maximum() -> None:
    path = load_path(LoadCycle(300.0, -1.0), PLATE, MATERIAL)
    assert path.amplitude == path.maximum == pytest.approx(300.0 * net_share(PLATE))
    assert len(path.ascending) == 2


@pytest.mark.parametrize(("stress", "ratio"), [(0.0, 0.0), (-1.0, 0.0), (9e9, 0.0), (400.0, 1.0)])
def test_a_cycle_without_tension_or_change_is_refused(stress: float, ratio: float) -> None:
    with pytest.raises(BadInput):
        LoadCycle(stress, ratio)


def test_the_deck_holds_the_mesh_as_it_is_with_its_canary() -> None:
    model = model_of(PLATE, 2)
    assert ccx.deck(model, (10.0,)).startswith(model.mesh)
    assert "canary-3" in model.mesh


@pytest.mark.parametrize("program", ["/bin/false", "/bin/true", "/nonexistent/ccx"])
def test_a_calculix_that_does_not_work_is_said_so(tmp_path: Path, program: str) -> None:
    with pytest.raises(Unsolved):
        ccx.solve(program, tmp_path, model_of(PLATE, 2), (10.0,))


def test_a_load_beyond_the_material_ends_in_an_error_not_in_a_number(tmp_path: Path) -> None:
    with pytest.raises(Unsolved):
        solver_named("calculix", tmp_path)(model_of(PLATE, 3), (10.0, 5000.0))
