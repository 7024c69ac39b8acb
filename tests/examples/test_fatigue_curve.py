"""The stress-strain curves and strain-life lines, against published figures and each other."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.fatigue.curve import (
    PROOF_STRAIN,
    RambergOsgood,
    StrainLife,
    cyclic_tendency,
    modified_universal_slopes,
    monotonic,
)
from examples.fatigue.fault import BadInput
from examples.fatigue.site_model import SiteModel, read_site_model, to_toml
from examples.fatigue.tensile import Tensile

STEEL = Tensile(0.62, 980.0, 840.0)
MODULUS = 206_000.0
MODEL = SiteModel(MODULUS, 0.29, 0.85, 0.98)

curves = st.builds(
    RambergOsgood,
    modulus=st.floats(60_000.0, 400_000.0),
    strength=st.floats(300.0, 4000.0),
    exponent=st.floats(0.05, 0.45),
)


@given(curve=curves, strain=st.floats(1e-6, 0.5))
def test_the_stress_at_a_strain_gives_the_strain_back(curve: RambergOsgood, strain: float) -> None:
    """Kills: a wrong slope, a wrong start, a too loose end of Newton's iteration."""
    stress = curve.stress(np.array(strain))
    assert float(curve.strain(stress)) == pytest.approx(strain, rel=1e-9)


@given(curve=curves, concentration=st.floats(1.0, 5.0), nominal=st.floats(10.0, 800.0))
def test_neuber_keeps_the_product_of_the_concentrations(
    curve: RambergOsgood, concentration: float, nominal: float
) -> None:
    """Kills: a bound that cuts the root off, a nominal strain that is not on the curve."""
    strain = curve.neuber_strain(concentration, nominal)
    stress = float(curve.stress(np.array(strain)))
    nominal_strain = float(curve.strain(np.array(nominal)))
    product = (stress / nominal) * (strain / nominal_strain)
    assert product == pytest.approx(concentration**2, rel=1e-7)
    assert strain >= concentration * nominal_strain * (1 - 1e-7)


def test_neuber_s_rule_is_elastic_where_the_curve_is() -> None:
    strain = monotonic(STEEL, MODULUS).neuber_strain(2.5, 40.0)
    assert strain == pytest.approx(100.0 / MODULUS, rel=1e-3)


def test_no_strain_needs_no_stress() -> None:
    assert float(monotonic(STEEL, MODULUS).stress(np.array(0.0))) == 0.0


def test_the_monotonic_curve_passes_the_proof_point_and_the_fracture_point() -> None:
    curve = monotonic(STEEL, MODULUS)
    fracture = STEEL.tensile_strength * (1 + STEEL.fracture_ductility)
    assert float(curve.plastic_strain(np.array(840.0))) == pytest.approx(PROOF_STRAIN)
    assert float(curve.plastic_strain(np.array(fracture))) == pytest.approx(
        STEEL.fracture_ductility
    )


def test_the_universal_slopes_reproduce_a_published_estimate() -> None:
    """Figures of Metals 15 (2025) 780 for a steel of 500 MPa, 210 GPa, fracture strain 1.021."""
    lines = modified_universal_slopes(Tensile(1 - float(np.exp(-1.0214)), 500.0, 355.0), 210_000.0)
    assert lines.strength == pytest.approx(859.34, rel=1e-3)
    assert lines.ductility == pytest.approx(0.4831, rel=1e-3)


def test_the_universal_slopes_agree_with_their_printed_form() -> None:
    """Range = 1.17 (s/E)^0.832 N^-0.09 + 0.0266 D^0.155 (s/E)^-0.53 N^-0.56."""
    cycles, ratio = 5000.0, STEEL.tensile_strength / MODULUS
    printed = 1.17 * ratio**0.832 * cycles**-0.09 + 0.0266 * (
        STEEL.fracture_ductility**0.155 * ratio**-0.53 * cycles**-0.56
    )
    ours = 2.0 * modified_universal_slopes(STEEL, MODULUS).amplitude(2.0 * cycles)
    assert ours == pytest.approx(printed, rel=2e-3)


def test_the_cyclic_curve_joins_the_elastic_and_the_plastic_line() -> None:
    lines = modified_universal_slopes(STEEL, MODULUS)
    curve = lines.cyclic()
    for reversals in (1.0, 1e3, 1e6):
        stress = lines.strength * reversals**lines.strength_exponent
        assert float(curve.strain(np.array(stress))) == pytest.approx(lines.amplitude(reversals))


def test_a_tensile_mean_stress_shortens_the_endured_amplitude() -> None:
    lines = StrainLife(MODULUS, 1500.0, -0.09, 0.33, -0.56)
    assert lines.amplitude(1e5, 200.0) < lines.amplitude(1e5) < lines.amplitude(1e5, -200.0)


@pytest.mark.parametrize(
    ("proof", "tendency"), [(400.0, "hardens"), (760.0, "mixed"), (900.0, "softens")]
)
def test_the_ratio_of_the_strengths_tells_hardening_from_softening(
    proof: float, tendency: str
) -> None:
    assert cyclic_tendency(Tensile(0.6, 980.0, proof)) == tendency


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (Tensile(0.40, 980.0, 840.0), "reduction of area"),
        (Tensile(0.62, 940.0, 840.0), "tensile strength"),
        (Tensile(0.62, 980.0, 800.0), "yield strength"),
    ],
)
def test_every_property_moves_the_site_s_curve(other: Tensile, what: str) -> None:
    strain = np.array([0.004, 0.01])
    ours, theirs = (MODEL.cyclic(steel).stress(strain) for steel in (STEEL, other))
    assert np.abs(ours / theirs - 1.0).max() > 1e-3, what


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_site_s_curve_runs_between_the_published_ones(share: float) -> None:
    curve = SiteModel(MODULUS, 0.3, share, 1.0).cyclic(STEEL)
    ends = (monotonic(STEEL, MODULUS), modified_universal_slopes(STEEL, MODULUS).cyclic())
    assert curve.strength == pytest.approx(ends[int(share)].strength)
    assert curve.exponent == pytest.approx(ends[int(share)].exponent)


def test_the_strength_factor_multiplies_the_flow_stress() -> None:
    plain = SiteModel(MODULUS, 0.3, 0.85, 1.0).cyclic(STEEL)
    assert MODEL.cyclic(STEEL).strength == pytest.approx(0.98 * plain.strength)


def test_the_model_file_gives_the_model_back_and_holds_its_canary(tmp_path: Path) -> None:
    path = tmp_path / "model.toml"
    path.write_text(to_toml(MODEL, "canary-1"), encoding="utf-8")
    assert read_site_model(path) == MODEL
    assert "canary-1" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "change",
    [
        ("stabilised = 0.85", "stabilised = 1.85"),
        ("stabilised = 0.85", 'stabilised = "0.85"'),
        ("stabilised = 0.85", "stabilized = 0.85"),
        ("stabilised = 0.85", ""),
        ("stabilised = 0.85", "stabilised = nan"),
        ("stabilised = 0.85", "stabilised"),
    ],
)
def test_a_model_file_with_a_fault_is_refused(tmp_path: Path, change: tuple[str, str]) -> None:
    path = tmp_path / "model.toml"
    path.write_text(to_toml(MODEL, "canary-1").replace(*change), encoding="utf-8")
    with pytest.raises(BadInput):
        read_site_model(path)
