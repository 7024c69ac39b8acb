"""The example of a gateway, run as it stands: agent, ssh and Slurm, each of them real."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from examples.demo.proof import files_with
from tests.e2e.conftest import CALL_SECONDS, Ended
from tests.e2e.far_site import an_open_hall
from tests.e2e.own_site import USER, Place
from tests.farhost import Far, far_host
from tests.forked import AS_TYPED
from tests.slurm import Slurm, a_slurm

EXAMPLE: Final = Path(__file__).resolve().parents[2] / "examples" / "gateway"
#: The site's own constant, in a file of the computing host that only its user may read.
SECRET: Final = "6.8317e-12"
#: Paris's law in closed form, for crack.txt and 80 MPa.
CYCLES: Final = 2_163_272


@dataclass
class Example:
    """The site of the example, its computing host, and the batch system there."""

    place: Place
    far: Far
    slurm: Slurm

    @property
    def base(self) -> Path:
        return self.far.home / "scratch" / "sekisho"

    def run(self, crack: Path, *words: str) -> Ended:
        """Type what the README says, and ask for every file that there is."""
        return self.place.run("crack-life", "-p", "stress=80", "-i", crack, "-o", "*", *words)

    def works(self) -> list[Path]:
        return sorted(self.base.glob("*/*/work"))

    def queue(self) -> list[str]:
        """Return processors and state of every job that the batch system has had."""
        words = ("--noheader", "--states=all", "--format=%C %T", "--user", self.far.server.user)
        return self.slurm.told("squeue", *words).splitlines()


def _install(place: Place, far: Far, slurm: Slurm, config: Path) -> None:
    """Put the files where the README says, with the edits that it names and no others."""
    config.write_text(far.server.alias("hpc"))
    edits = {
        "tohoku": place.name,
        "hanako": USER,
        "/opt/crack": str(far.home / "crack"),
        "/scratch/mint": str(far.home / "scratch"),
        "/etc/sekisho/ssh_config": str(config),
        "/etc/slurm/slurm.conf": str(slurm.conf),
    }
    texts = [(EXAMPLE / name).read_text("utf-8") for name in ("agent.toml", "manifest.toml")]
    readmes = [(EXAMPLE / name).read_text("utf-8") for name in ("README.md", "README.ja.md")]
    for old, new in edits.items():
        assert old in "".join(texts)
        assert all(f"`{old}`" in readme for readme in readmes)
        texts = [text.replace(old, new) for text in texts]
    with (place.home / "agent.toml").open("a") as settings:
        settings.write(texts[0])
    (place.home / "manifest.toml").write_text(texts[1], "utf-8")
    shutil.copytree(EXAMPLE / "crack", far.home / "crack")
    (far.home / "scratch").mkdir()
    for made in (far.home / "scratch", far.home / "crack" / "material.txt"):
        made.chmod(0o700 if made.is_dir() else 0o600)
        os.chown(made, far.uid, -1)


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Example]:
    with ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-")))
        base.chmod(0o755)
        slurm = stack.enter_context(a_slurm(base / "s"))
        far = stack.enter_context(far_host(tmp_path))
        (tmp_path / "hall").mkdir()
        place = stack.enter_context(an_open_hall(tmp_path / "hall")).joined(commands="")
        _install(place, far, slurm, tmp_path / "hpc_config")
        yield Example(place, far, slurm)


def test_the_example_computes_behind_ssh_and_slurm_and_its_material_stays_there(
    example: Example,
) -> None:
    with example.place.agent():
        refused = example.run(EXAMPLE / "crack.txt", "-p", "cpus=5")
        assert (refused.status, example.works(), example.queue()) == (77, [], [])
        assert "parameter.invalid" in refused.out + refused.err
        done = example.run(EXAMPLE / "crack.txt", "-p", "cpus=3")
    assert done.status == 0, done.out + done.err
    assert example.queue() == ["3 COMPLETED"]

    results = example.place.home.with_suffix(".results")
    assert [file.name for file in results.iterdir()] == ["life.csv"]
    length, cycles = (results / "life.csv").read_text().splitlines()[-1].split(",")
    assert length == "0.02"
    assert float(cycles) == pytest.approx(CYCLES, rel=1e-4)

    (work,) = example.works()
    assert (work / "steps.log").read_text().split() == ["mesh", "solve", "table"]
    assert {file.stat().st_uid for file in work.iterdir()} == {example.far.uid}

    everything_else = [example.place.hall.home]
    assert results / "life.csv" in files_with(cycles, everything_else)
    assert work / "part.0" in files_with(SECRET, [example.base])
    assert files_with(SECRET, everything_else) == []


def typed_in(readme: str) -> list[str]:
    """Return the words of the one line that the workflow's side types."""
    text = (EXAMPLE / readme).read_text("utf-8")
    (line,) = re.findall(r"^sekisho run .*$", text, re.MULTILINE)
    return shlex.split(line)[1:]


def test_what_the_readme_has_typed_works_as_it_stands(example: Example, tmp_path: Path) -> None:
    told = example.place.site("check", LC_ALL="en_US.UTF-8").out
    assert re.search(r"batch system: ssh:hpc: slurm: \d+: (waiting, )?(running, )?ended\n", told)
    assert "0 faults" in told
    words = typed_in("README.md")
    assert words == typed_in("README.ja.md")
    shutil.copy(EXAMPLE / "crack.txt", tmp_path)
    with example.place.agent():
        words = [word.replace("tohoku", example.place.name) for word in words]
        environ = example.place.hall.environ
        subprocess.run(
            [*AS_TYPED, *words], cwd=tmp_path, env=environ, check=True, timeout=CALL_SECONDS
        )
    assert [file.name for file in (tmp_path / "results").iterdir()] == ["life.csv"]


def test_a_crack_without_a_length_ends_before_the_solver(example: Example, tmp_path: Path) -> None:
    (tmp_path / "crack.txt").write_text("0.02 0.001\n")
    with example.place.agent():
        done = example.run(tmp_path / "crack.txt")
    assert done.status != 0
    assert done.json["code"] == "step.failed", done.out + done.err
    assert done.json["params"] == {"step": "before", "exit_code": 65}
    (work,) = example.works()
    assert (work / "steps.log").read_text().split() == ["mesh"]
    assert example.queue() == []
