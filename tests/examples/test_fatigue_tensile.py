"""The property files: one number, one unit, nothing guessed."""

from pathlib import Path

import pytest

from examples.fatigue.fault import BadInput
from examples.fatigue.tensile import RATIO, STRESS, Tensile, read_property, read_tensile

INPUTS = Path(__file__).parents[2] / "examples" / "fatigue" / "inputs"


def test_the_example_inputs_are_a_quenched_and_tempered_steel() -> None:
    read = read_tensile(
        INPUTS / "reduction_of_area.txt",
        INPUTS / "tensile_strength.txt",
        INPUTS / "yield_strength.txt",
    )
    assert read == Tensile(0.62, 980.0, 840.0)


@pytest.mark.parametrize(
    ("text", "units", "value"),
    [
        ("# strength [MPa]\n980\n", STRESS, 980.0),
        ("980\n# strength [N/mm2]\n", STRESS, 980.0),
        ("# strength [GPa]\n\n 0.98 \n", STRESS, 980.0),
        ("# 絞り [%]\n62\n", RATIO, 0.62),
        ("# [-]\n6.2e-1\n", RATIO, 0.62),
    ],
)
def test_a_property_is_read_in_the_base_unit(
    tmp_path: Path, text: str, units: dict[str, float], value: float
) -> None:
    path = tmp_path / "property.txt"
    path.write_text(text, encoding="utf-8")
    assert read_property(path, units) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "980\n",
        "# no unit\n980\n",
        "# [ksi]\n142\n",
        "# [%]\n62\n",
        "# [MPa] or [GPa]\n980\n",
        "# [MPa]\n",
        "# [MPa]\n980\n840\n",
        "# [MPa]\n980 MPa\n",
        "# [MPa]\nnan\n",
        "# [MPa]\ninf\n",
        "# [MPa]\n980\n" + "\n" * 5000,
    ],
)
def test_a_file_whose_meaning_must_be_guessed_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "property.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput):
        read_property(path, STRESS)


@pytest.mark.parametrize("content", [None, b"\xff\xfe# [MPa]\n980\n"])
def test_a_file_that_is_absent_or_no_text_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "property.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput):
        read_property(path, STRESS)


@pytest.mark.parametrize(
    ("area", "tensile", "proof"),
    [(0.0, 980.0, 840.0), (62.0, 980.0, 840.0), (0.62, 98.0, 84.0), (0.62, 980.0, 990.0)],
)
def test_what_no_steel_can_be_is_refused(area: float, tensile: float, proof: float) -> None:
    with pytest.raises(BadInput):
        Tensile(area, tensile, proof)
