"""The site's command: three property files in, the stress distribution of a notched specimen out.

Runs in its work directory (the current one) and writes there `stress_distribution.csv`,
`stress.png` and `summary.json`, which may leave the site, beside the solver's working files, which
hold the secret mesh and material. What it prints names secret files too and must stay.
Exit status: 0, or 65 for unusable input, or 70 for a computation that cannot be trusted.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MPLCONFIGDIR"] = str(Path.cwd() / ".matplotlib")

from examples.fatigue import ccx, fem, outcome, picture, site_model, specimen
from examples.fatigue.curve import RambergOsgood
from examples.fatigue.fault import BadInput, Fault
from examples.fatigue.life import require_local
from examples.fatigue.model import Model
from examples.fatigue.notch import LoadCycle, check, load_path, read_cycle, require
from examples.fatigue.plasticity import Material
from examples.fatigue.solution import Solved
from examples.fatigue.tensile import Tensile, read_tensile

SOLVERS = ("auto", "calculix", "scikit-fem")


def say(text: str) -> None:
    """Report progress at once."""
    print(text, flush=True)


def read_model(site_data: Path, tensile: Tensile) -> Model:
    """Combine the workflow's tensile properties with the site's secrets."""
    mesh_file = site_data / specimen.FILE_NAME
    model_file = site_data / site_model.FILE_NAME
    say(f"[1/4] secret material model: {model_file}")
    site = site_model.read_site_model(model_file)
    curve = site.cyclic(tensile)
    say(f"      cyclic curve: E {curve.modulus:.0f} MPa, K' {curve.strength:.1f} MPa,")
    say(f"      n' {curve.exponent:.4f}; stress at 0.2 % plastic strain {_proof(curve):.0f} MPa")
    say(f"[2/4] secret mesh: {mesh_file}")
    body = specimen.read_specimen(mesh_file)
    say(f"      {len(body.nodes)} nodes, {len(body.elements)} elements")
    return Model(mesh_file.read_text(encoding="utf-8"), body, Material(curve, site.poisson))


def _proof(curve: RambergOsgood) -> float:
    return float(curve.strength * 0.002**curve.exponent)


def solve(choice: str, work: Path, model: Model, tractions: tuple[float, ...]) -> Solved:
    """Run the solver that was chosen; `auto` takes CalculiX where it is installed."""
    program = None if choice == "scikit-fem" else ccx.find_ccx()
    if program is not None:
        return ccx.solve(program, work, model, tractions)
    if choice == "calculix":
        raise BadInput("CalculiX (ccx) is not installed")
    (work / f"{ccx.JOB}.inp").write_text(ccx.deck(model, tractions), encoding="utf-8")
    return fem.solve(model, tractions)


def run(arguments: argparse.Namespace, work: Path) -> None:
    """Do the whole computation in the work directory."""
    tensile = read_tensile(arguments.area, arguments.tensile, arguments.proof)
    load = LoadCycle(arguments.max_stress, arguments.load_ratio)
    require_local(tensile, load.max_stress)
    model = read_model(arguments.site_data, tensile)
    path = load_path(load, model.specimen.plate, model.material)
    say("[3/4] elastic-plastic finite element analysis")
    solved = solve(arguments.solver, work, model, path.ascending)
    cycle = read_cycle(solved, path)
    checks = check(solved, cycle, model.material.curve)
    for item in checks:
        say(f"      {item.name} = {item.value:.4f} (allowed {item.low:g} to {item.high:g})")
    require(checks)
    say(f"[4/4] results of {solved.solver}")
    title = f"von Mises stress at {load.max_stress:g} MPa net ({solved.solver})"
    outcome.write_distribution(work / outcome.DISTRIBUTION, outcome.stations(solved, cycle))
    picture.draw(work / outcome.PICTURE, solved.specimen, cycle.maximum, title)
    outcome.write_json(work / outcome.SUMMARY, outcome.summary(solved, cycle, load, checks))


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    line = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    line.add_argument("--site-data", type=Path, required=True, help="directory of the secrets")
    line.add_argument("--area", type=Path, required=True, help="file: reduction of area")
    line.add_argument("--tensile", type=Path, required=True, help="file: tensile strength")
    line.add_argument(
        "--yield", type=Path, required=True, dest="proof", help="file: yield strength"
    )
    line.add_argument("--max-stress", type=float, default=450.0, help="net section, MPa")
    line.add_argument("--load-ratio", type=float, default=0.0, help="smallest over largest load")
    line.add_argument("--solver", choices=SOLVERS, default="auto")
    return line


def main() -> int:
    """Run the program."""
    arguments = parser().parse_args()
    try:
        run(arguments, Path.cwd())
    except Fault as fault:
        print(f"error[{fault.code}]: {fault}", file=sys.stderr)
        return fault.exit_status
    say("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
