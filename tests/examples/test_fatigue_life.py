"""The fatigue life: the equation it solves, and how it moves with the load."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.fatigue.curve import modified_universal_slopes
from examples.fatigue.fault import BadInput
from examples.fatigue.life import (
    LONGEST,
    SHORTEST,
    MeanStress,
    cycles_to_failure,
    predict,
    report,
    require_local,
)
from examples.fatigue.outcome import Station, read_distribution, write_distribution
from examples.fatigue.tensile import Tensile

STEEL = Tensile(0.62, 980.0, 840.0)
LINES = modified_universal_slopes(STEEL, 206_000.0)


def station(distance: float, largest: float, amplitude: float, strain: float) -> Station:
    return Station(distance, 3.0 + distance, 0.0, largest, 0.001, largest, 0.007, amplitude, strain)


ROOT = station(0.0, 750.0, 510.0, 0.0028)

corrections = pytest.mark.parametrize("correction", list(MeanStress))


@given(cycles=st.floats(1.0, 1e8), mean=st.floats(-200.0, 300.0))
def test_morrow_s_life_solves_its_equation(cycles: float, mean: float) -> None:
    """Kills: reversals taken for cycles, a mean stress of the wrong sign."""
    amplitude = (LINES.strength - mean) / 206_000.0 * (2 * cycles) ** -0.09
    amplitude += LINES.ductility * (2 * cycles) ** -0.56
    place = station(0.0, 400.0 + mean, 400.0, amplitude)
    assert cycles_to_failure(LINES, place, MeanStress.MORROW) == pytest.approx(cycles, rel=1e-6)


@given(cycles=st.floats(1.0, 1e8), strain=st.floats(1e-4, 0.05))
def test_smith_watson_topper_s_life_solves_its_equation(cycles: float, strain: float) -> None:
    """Kills: an exponent 2b lost, an amplitude taken for a maximum."""
    endured = LINES.strength**2 / 206_000.0 * (2 * cycles) ** -0.18
    endured += LINES.strength * LINES.ductility * (2 * cycles) ** (-0.09 - 0.56)
    place = station(0.0, endured / strain, 300.0, strain)
    assert cycles_to_failure(LINES, place, MeanStress.SWT) == pytest.approx(cycles, rel=1e-6)


@corrections
@given(factor=st.floats(1.001, 1.5))
def test_more_strain_gives_a_shorter_life(correction: MeanStress, factor: float) -> None:
    """Kills: a bisection that keeps the wrong half."""
    harder = replace(ROOT, strain_yy_amplitude=factor * ROOT.strain_yy_amplitude)
    assert cycles_to_failure(LINES, harder, correction) < cycles_to_failure(LINES, ROOT, correction)


@corrections
def test_a_higher_mean_stress_gives_a_shorter_life(correction: MeanStress) -> None:
    lives = [
        cycles_to_failure(LINES, replace(ROOT, stress_yy_max_mpa=largest), correction)
        for largest in (520.0, 650.0, 780.0)
    ]
    assert lives[0] > lives[1] > lives[2]


@corrections
def test_a_load_off_the_curve_gives_the_ends_of_the_scale(correction: MeanStress) -> None:
    nothing = station(0.0, 1.0, 1.0, 1e-6)
    everything = station(0.0, 2000.0, 2000.0, 5.0)
    assert cycles_to_failure(LINES, nothing, correction) == LONGEST
    assert cycles_to_failure(LINES, everything, correction) == SHORTEST


def test_compression_alone_does_no_damage_by_smith_watson_topper() -> None:
    assert cycles_to_failure(LINES, station(0.0, -10.0, 300.0, 0.01), MeanStress.SWT) == LONGEST


@corrections
def test_the_weakest_station_gives_the_life(correction: MeanStress) -> None:
    inside = station(0.5, 600.0, 300.0, 0.0016)
    life = predict(STEEL, (inside, ROOT, inside), correction)
    assert life.at == ROOT
    assert life.cycles == cycles_to_failure(LINES, ROOT, correction)
    assert 1e4 < life.cycles < 1e5
    assert report(life, STEEL)["life_cycles"] == pytest.approx(life.cycles, rel=1e-5)


def test_a_life_beyond_the_fitted_range_says_so() -> None:
    mild = predict(STEEL, (station(0.0, 300.0, 150.0, 0.0007),), MeanStress.SWT)
    assert mild.extrapolated
    assert not predict(STEEL, (ROOT,), MeanStress.SWT).extrapolated


def test_a_yielding_net_section_is_refused() -> None:
    require_local(STEEL, 839.0)
    with pytest.raises(BadInput):
        require_local(STEEL, 840.0)


def test_the_distribution_file_gives_the_stations_back(tmp_path: Path) -> None:
    path = tmp_path / "stress_distribution.csv"
    places = (ROOT, station(0.25, 700.0, 480.0, 0.0024))
    write_distribution(path, places)
    assert read_distribution(path) == places


@pytest.mark.parametrize(
    "change",
    [("x_mm", "x_m"), ("750", "nan"), ("750", "much"), (",510", "")],
)
def test_a_distribution_with_a_fault_is_refused(tmp_path: Path, change: tuple[str, str]) -> None:
    path = tmp_path / "stress_distribution.csv"
    write_distribution(path, (ROOT,))
    path.write_text(path.read_text(encoding="utf-8").replace(*change), encoding="utf-8")
    with pytest.raises(BadInput):
        read_distribution(path)


def test_a_distribution_without_stations_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "stress_distribution.csv"
    write_distribution(path, ())
    with pytest.raises(BadInput):
        read_distribution(path)
