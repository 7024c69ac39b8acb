"""The recipe for a workflow module: port names in, the command of a site, files at the ports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import SITE, Ended, House

RECIPE = Path(__file__).resolve().parents[2] / "examples" / "mint_module"
#: The settings of the recipes, edited as a user would, for the site of these tests.
EDITS = {
    "works": SITE,
    "notched-specimen": "copy",
    "reduction_of_area.txt": "in/reduction_of_area.txt",
    "tensile_strength.txt": "in/tensile_strength.txt",
    "yield_strength.txt": "in/yield_strength.txt",
    "stress_distribution.csv": "out/reduction_of_area.txt",
    "stress.png": "out/tensile_strength.txt",
    "summary.json": "out/yield_strength.txt",
}
INPUTS = {"絞り": "60", "引張強さ": "500", "降伏応力": "300"}
OUTPUTS = {"応力分布": "60", "応力図": "500", "要約": "300"}


@pytest.fixture(params=["module.py", "module.sh"])
def module(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    name: str = request.param
    text = (RECIPE / name).read_text("utf-8")
    for old, new in EDITS.items():
        assert old in text
        text = text.replace(old, new)
    program = tmp_path / name
    program.write_text(text, "utf-8")
    program.chmod(0o755)
    return program


def call(house: House, module: Path, *words: str) -> Ended:
    folder = Path(sys.executable).parent  # where `sekisho` is installed
    done = subprocess.run(
        [str(module), *words],
        check=False,
        cwd=module.parent,
        env=house.environ | {"PATH": f"{folder}:{house.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def ports(folder: Path) -> list[str]:
    words = []
    for port, value in INPUTS.items():
        (folder / f"{port}.txt").write_text(value)
        words += [f"--{port}", str(folder / f"{port}.txt")]
    return words


def test_files_of_ports_go_to_the_site_and_results_come_to_the_ports(
    house: House, module: Path
) -> None:
    done = call(house, module, *ports(module.parent))
    assert done.status == 0, done.err
    for port, value in OUTPUTS.items():
        assert (module.parent / port).read_text() == value


def test_a_module_started_again_finds_its_job(house: House, module: Path) -> None:
    words = ports(module.parent)
    assert call(house, module, *words).status == 0
    job = (module.parent / "sekisho-job-id").read_text()
    (module.parent / "応力分布").unlink()
    assert call(house, module, *words).status == 0
    assert (module.parent / "sekisho-job-id").read_text() == job
    assert (module.parent / "応力分布").read_text() == "60"


def test_a_refusal_ends_the_module_with_its_status(house: House, module: Path) -> None:
    (module.parent / "value").write_text("450\n")
    done = call(house, module, *ports(module.parent), "--最大応力", str(module.parent / "value"))
    assert done.status == 77
    assert "parameter.unknown" in done.err
    assert not (module.parent / "応力分布").exists()


@pytest.mark.parametrize("words", [["--知らない", "x"], ["--絞り"]])
def test_a_wrong_port_is_told(house: House, module: Path, words: list[str]) -> None:
    assert call(house, module, *words).status == 64
