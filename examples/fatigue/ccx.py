"""CalculiX as the solver: its input deck, its run, its result file.

The deck holds the whole mesh and the flow curve, so that everything it leaves in the work
directory is as secret as the site's own files. One thread only: elastic-plastic decks were seen to
diverge with more (CalculiX 2.20). Manual: G. Dhondt, CalculiX CrunchiX User's Manual, 2.20 (2022).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np

from examples.fatigue.curve import Array
from examples.fatigue.fault import Unsolved
from examples.fatigue.model import Model
from examples.fatigue.plasticity import OFFSET, Material
from examples.fatigue.solution import Solution, Solved
from examples.fatigue.specimen import Specimen

JOB = "analysis"
TIMEOUT_S = 300.0
FLOW_POINTS = 120
MAX_PLASTIC_STRAIN = 0.5
FIELDS = ("STRESS", "TOSTRAIN", "PE")


def find_ccx() -> str | None:
    """Return the path of CalculiX, or None where it is not installed."""
    return shutil.which("ccx")


def solve(program: str, work: Path, model: Model, tractions: tuple[float, ...]) -> Solved:
    """Pull the specimen to each of the ascending gross tractions (MPa), along one loading path.

    Everything is written into the directory `work`.
    """
    (work / f"{JOB}.inp").write_text(deck(model, tractions), encoding="utf-8")
    log = _run(program, work)
    (work / f"{JOB}.log").write_text(log, encoding="utf-8")
    try:
        tables = _tables((work / f"{JOB}.frd").read_text(encoding="latin-1"))
    except (OSError, ValueError) as error:
        raise Unsolved("CalculiX left no readable result") from error
    if len(tables) != len(tractions) or not all(_complete(model, table) for table in tables):
        raise Unsolved("CalculiX stopped before the last load")
    solutions = tuple(_solution(s, table) for s, table in zip(tractions, tables, strict=True))
    return Solved(_name(log), model.specimen, solutions)


def deck(model: Model, tractions: tuple[float, ...]) -> str:
    """Return the input deck: mesh, material, symmetry, and one static step per load."""
    specimen, material = model.specimen, model.material
    lines = [
        "*MATERIAL, NAME=SITE",
        "*ELASTIC",
        f"{material.curve.modulus:.8g}, {material.poisson:.8g}",
        "*PLASTIC",
        *(f"{stress:.8g}, {strain:.8g}" for stress, strain in _flow_curve(material)),
        "*SOLID SECTION, ELSET=EALL, MATERIAL=SITE",
        "1.",
        "*BOUNDARY",
        *(f"{node + 1}, 1, 1" for node in specimen.on(0, 0.0).tolist()),
        *(f"{node + 1}, 2, 2" for node in specimen.on(1, 0.0).tolist()),
    ]
    for traction in tractions:
        lines += _step(specimen, traction)
    return model.mesh + "\n".join(lines) + "\n"


def _step(specimen: Specimen, traction: float) -> list[str]:
    forces = traction * specimen.pull()
    return [
        "*STEP, INC=500",
        "*STATIC",
        "0.2, 1., 1e-6, 0.25",
        "*CLOAD",
        *(f"{node + 1}, 2, {forces[node]:.10g}" for node in np.flatnonzero(forces).tolist()),
        "*EL FILE, OUTPUT=2D, FREQUENCY=9999",
        "S, E, PEEQ",
        "*END STEP",
    ]


def _flow_curve(material: Material) -> list[tuple[float, float]]:
    """Points (stress, plastic strain) of the hardening law; ccx joins them by straight lines."""
    strains = np.geomspace(OFFSET, MAX_PLASTIC_STRAIN, FLOW_POINTS) - OFFSET
    stresses = material.yield_stress(strains)
    return list(zip(stresses.tolist(), strains.tolist(), strict=True))


def _run(program: str, work: Path) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            (program, "-i", JOB),
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Unsolved("CalculiX did not end normally") from error
    return done.stdout.decode("latin-1")


def _name(log: str) -> str:
    words = log.split("Version", maxsplit=1)
    return f"CalculiX {words[1].split()[0].rstrip(',')}" if len(words) == 2 else "CalculiX"


def _tables(text: str) -> list[dict[str, Array]]:
    """Read the nodal tables of each step: {field: (n, components)}, nodes in the mesh's order.

    Fixed columns (manual, the chapter on the .frd format): `1PSTEP` ends with the step's number,
    ` -4` names a field, ` -1` is a node's row (values of twelve columns from the fourteenth on),
    ` -3` ends the field. Nodes come in ascending order, as in the mesh file.
    """
    steps: dict[int, dict[str, Array]] = {}
    step, field = 0, ""
    rows: list[list[float]] = []
    for line in text.split("\n"):
        if line.startswith("    1PSTEP"):
            step = int(line.split()[-1])
        elif line.startswith(" -4"):
            field, rows = line[5:13].strip(), []
        elif line.startswith(" -1") and field:
            rows.append([float(line[at : at + 12]) for at in range(13, len(line) - 11, 12)])
        elif line.startswith(" -3") and field:
            steps.setdefault(step, {})[field] = np.array(rows)
            field = ""
    return [steps[number] for number in sorted(steps)]


def _complete(model: Model, table: dict[str, Array]) -> bool:
    """Whether a step has every field at every node."""
    return all(len(table.get(field, ())) == len(model.specimen.nodes) for field in FIELDS)


def _solution(traction: float, table: dict[str, Array]) -> Solution:
    """Turn one load's tables into fields; ccx orders components xx yy zz xy yz zx."""
    plane = [0, 1, 3]
    strain = table["TOSTRAIN"][:, plane] * np.array([1.0, 1.0, 2.0])
    return Solution(traction, table["STRESS"][:, plane], strain, np.maximum(table["PE"][:, 0], 0.0))
