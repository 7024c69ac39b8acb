"""The specimen's mesh and its file."""

from pathlib import Path

import numpy as np
import pytest

from examples.fatigue.fault import BadInput
from examples.fatigue.picture import triangles
from examples.fatigue.specimen import Plate, make_specimen, read_specimen, to_inp

PLATE = Plate(3.0, 12.0, 30.0)
SPECIMEN = make_specimen(PLATE, 4)


def test_the_mesh_tells_its_own_plate() -> None:
    assert pytest.approx(PLATE, rel=1e-12) == SPECIMEN.plate


def test_the_elements_cover_the_plate_without_the_hole() -> None:
    corners = SPECIMEN.nodes[SPECIMEN.elements[:, [0, 4, 1, 5, 2, 6, 3, 7]]]
    x, y = corners[..., 0], corners[..., 1]
    areas = 0.5 * (x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)).sum(axis=1)
    assert np.all(areas > 0.0)
    assert areas.sum() == pytest.approx(12 * 30 - np.pi * 9 / 4, rel=1e-3)


def test_the_picture_s_triangles_cover_what_the_elements_cover() -> None:
    x, y = SPECIMEN.nodes[triangles(SPECIMEN)].transpose(2, 0, 1)
    doubled = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    assert np.all(doubled > 0.0)
    assert 0.5 * doubled.sum() == pytest.approx(12 * 30 - np.pi * 9 / 4, rel=1e-3)


def test_the_hole_s_nodes_lie_on_the_circle_and_no_node_lies_inside() -> None:
    distance = np.linalg.norm(SPECIMEN.nodes, axis=1)
    assert distance.min() == pytest.approx(3.0, rel=1e-12)
    assert np.isclose(distance, 3.0, rtol=1e-9).sum() == 4 * 4 + 1


def test_no_two_nodes_are_at_one_place() -> None:
    assert len(np.unique(np.round(SPECIMEN.nodes, 6), axis=0)) == len(SPECIMEN.nodes)


def test_the_pull_adds_up_to_the_traction_on_the_end() -> None:
    pull = SPECIMEN.pull()
    assert pull.sum() == pytest.approx(12.0)
    assert float(pull @ SPECIMEN.nodes[:, 0]) == pytest.approx(12.0 * 6.0)
    assert set(np.flatnonzero(pull).tolist()) == set(SPECIMEN.on(1, 30.0).tolist())


def test_the_ligament_runs_from_the_notch_root_to_the_edge() -> None:
    places = SPECIMEN.nodes[SPECIMEN.ligament]
    assert SPECIMEN.nodes[SPECIMEN.root] == pytest.approx(np.array([3.0, 0.0]), abs=1e-12)
    assert np.all(np.diff(places[:, 0]) > 0.0)
    assert len(places) == 2 * 8 + 1


def test_the_mesh_file_gives_the_mesh_back(tmp_path: Path) -> None:
    path = tmp_path / "mesh.inp"
    path.write_text(to_inp(SPECIMEN, "canary-2"), encoding="utf-8")
    read = read_specimen(path)
    assert np.array_equal(read.elements, SPECIMEN.elements)
    assert read.nodes == pytest.approx(SPECIMEN.nodes, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    "change",
    [
        ("*NODE", "*HEADING"),
        ("*ELEMENT", "*HEADING"),
        ("\n1, ", "\n999999, "),
        ("\n1, ", "\n1.5x, "),
        ("CPS8R, ELSET=EALL\n", "CPS8R, ELSET=EALL\n1, 1, 2, 3, 4\n"),
        ("CPS8R, ELSET=EALL\n", "CPS8R, ELSET=EALL\n0, 1, 2, 3, 4, 5, 6, 7, 888888\n"),
    ],
)
def test_a_mesh_file_with_a_fault_is_refused(tmp_path: Path, change: tuple[str, str]) -> None:
    path = tmp_path / "mesh.inp"
    path.write_text(to_inp(SPECIMEN, "canary-2").replace(*change), encoding="utf-8")
    with pytest.raises(BadInput):
        read_specimen(path)


def test_an_absent_mesh_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        read_specimen(tmp_path / "absent.inp")
