"""The three programs as they are started: by path, in a foreign directory, with no environment."""

import csv
import json
import re
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from examples.fatigue.specimen import Specimen, read_specimen, to_inp

PROGRAMS = Path(__file__).parents[2] / "examples" / "fatigue"
RESULTS = ("stress_distribution.csv", "stress.png", "summary.json")
PROPERTIES = (
    "--area",
    str(PROGRAMS / "inputs" / "reduction_of_area.txt"),
    "--tensile",
    str(PROGRAMS / "inputs" / "tensile_strength.txt"),
    "--yield",
    str(PROGRAMS / "inputs" / "yield_strength.txt"),
)


def start(cwd: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    cwd.mkdir(exist_ok=True)
    argv = (sys.executable, str(PROGRAMS / program), *arguments)
    return subprocess.run(
        argv, cwd=cwd, env={}, capture_output=True, encoding="utf-8", timeout=60, check=False
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Make secrets: their directory and their canaries."""
    base = tmp_path_factory.mktemp("site")
    done = start(base, "make_site_data.py", "secret")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    mesh, material = made["canaries"]
    return {"data": str(base / "secret"), "mesh": mesh, "material": material}


def compute(work: Path, site: dict[str, str], *more: str) -> subprocess.CompletedProcess[str]:
    return start(work, "site_program.py", "--site-data", site["data"], *PROPERTIES, *more)


def test_the_secrets_are_private_hold_their_canaries_and_are_made_once(
    site: dict[str, str], tmp_path: Path
) -> None:
    data = Path(site["data"])
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in data.iterdir()} == {0o600}
    assert site["mesh"] in (data / "specimen.inp").read_text(encoding="utf-8")
    assert site["material"] in (data / "material_model.toml").read_text(encoding="utf-8")
    assert start(tmp_path, "make_site_data.py", site["data"]).returncode != 0


@pytest.mark.parametrize("solver", ["calculix", "scikit-fem"])
def test_the_story_goes_from_three_properties_to_a_life(
    site: dict[str, str], tmp_path: Path, solver: str
) -> None:
    done = compute(tmp_path, site, "--solver", solver)
    assert (done.returncode, done.stderr) == (0, "")
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert summary["kt_numeric"] == pytest.approx(summary["kt_reference"], rel=0.05)
    assert solver in summary["solver"].lower()
    assert (tmp_path / "stress.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    with (tmp_path / "stress_distribution.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 41
    for column, name in {
        "stress_yy_max_mpa": "notch_stress_max_mpa",
        "strain_yy_max": "notch_strain_max",
        "stress_yy_amplitude_mpa": "notch_stress_amplitude_mpa",
        "strain_yy_amplitude": "notch_strain_amplitude",
    }.items():
        assert float(rows[0][column]) == pytest.approx(summary[name], rel=1e-4)
    assert summary["notch_strain_amplitude"] < 0.8 * summary["notch_strain_max"]
    life = start(tmp_path, "fatigue_life.py", *PROPERTIES)
    assert (life.returncode, life.stderr) == (0, "")
    assert re.fullmatch(r"fatigue life: \S+ cycles to crack initiation\n", life.stdout)
    found = json.loads((tmp_path / "life.json").read_text(encoding="utf-8"))
    assert 1e3 < found["life_cycles"] < 1e6


def test_the_secret_is_in_the_working_files_but_not_in_the_results(
    site: dict[str, str], tmp_path: Path
) -> None:
    done = compute(tmp_path, site)
    assert done.returncode == 0, done.stderr
    assert site["mesh"] in (tmp_path / "analysis.inp").read_text(encoding="utf-8")
    assert site["data"] in done.stdout
    for name in RESULTS:
        content = (tmp_path / name).read_bytes()
        for secret in (site["mesh"], site["material"], site["data"]):
            assert secret.encode() not in content


def test_a_property_without_a_unit_stops_the_site_s_program_before_it_writes(
    site: dict[str, str], tmp_path: Path
) -> None:
    area = tmp_path / "area.txt"
    area.write_text("62\n", encoding="utf-8")
    work = tmp_path / "work"
    done = compute(work, site, "--area", str(area))
    assert done.returncode == 65
    assert done.stderr.startswith("error[bad_input]: area.txt")
    assert [path.name for path in work.iterdir() if path.is_file()] == []


@pytest.mark.parametrize("load", ["900", "0", "-5", "nan", "inf"])
def test_a_load_out_of_range_is_refused(site: dict[str, str], tmp_path: Path, load: str) -> None:
    assert compute(tmp_path, site, f"--max-stress={load}").returncode == 65


def test_a_site_without_its_secrets_says_so(tmp_path: Path) -> None:
    done = compute(tmp_path, {"data": str(tmp_path / "absent")})
    assert done.returncode == 65


def test_the_life_refuses_a_table_and_a_summary_of_different_computations(
    site: dict[str, str], tmp_path: Path
) -> None:
    done = compute(tmp_path, site, "--solver", "scikit-fem")
    assert done.returncode == 0, done.stderr
    path = tmp_path / "summary.json"
    summary = json.loads(path.read_text(encoding="utf-8"))
    summary["notch_stress_max_mpa"] *= 1.1
    path.write_text(json.dumps(summary), encoding="utf-8")
    life = start(tmp_path, "fatigue_life.py", *PROPERTIES)
    assert life.returncode == 65
    assert not (tmp_path / "life.json").exists()


def test_a_mesh_whose_result_misses_the_closed_form_gives_no_result(tmp_path: Path) -> None:
    """The hole of this mesh is an ellipse: its stress concentration is not a circle's."""
    assert start(tmp_path, "make_site_data.py", "secret").returncode == 0
    mesh = tmp_path / "secret" / "specimen.inp"
    whole = read_specimen(mesh)
    flat = Specimen(whole.nodes * np.array([1.0, 0.7]), whole.elements)
    mesh.write_text(to_inp(flat, "canary-4"), encoding="utf-8")
    done = compute(tmp_path, {"data": str(tmp_path / "secret")}, "--solver", "scikit-fem")
    assert done.returncode == 70
    assert "kt_over_heywood" in done.stderr
    assert not any((tmp_path / name).exists() for name in RESULTS)


def test_a_higher_load_gives_a_shorter_life(site: dict[str, str], tmp_path: Path) -> None:
    lives = []
    for load in ("350", "500"):
        work = tmp_path / load
        assert compute(work, site, f"--max-stress={load}").returncode == 0
        assert start(work, "fatigue_life.py", *PROPERTIES).returncode == 0
        found = json.loads((work / "life.json").read_text(encoding="utf-8"))
        lives.append(found["life_cycles"])
    assert lives[0] > 3 * lives[1]
