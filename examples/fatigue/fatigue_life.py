"""The workflow's next module: the fatigue life, from what the site gave back.

Reads the stress distribution, the summary and the workflow's own three property files; writes
`life.json` and prints one line. Exit status: 0, or 65 for unusable input.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.fatigue import outcome
from examples.fatigue.fault import BadInput, Fault
from examples.fatigue.life import Life, MeanStress, predict, report, require_local
from examples.fatigue.tensile import read_tensile

TOLERANCE = 0.01


def number(summary: dict[str, object], name: str) -> float:
    """Take a number out of the summary."""
    value = summary.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise BadInput(f"the summary has no number {name}")
    return float(value)


def require_same_root(summary: dict[str, object], root: outcome.Station) -> None:
    """Refuse a table and a summary that are not of one computation."""
    stated = number(summary, "notch_stress_max_mpa")
    if abs(root.stress_yy_max_mpa - stated) > TOLERANCE * abs(stated):
        raise BadInput("the stress distribution and the summary disagree at the notch")


def run(arguments: argparse.Namespace) -> Life:
    """Compute the life and write its file."""
    tensile = read_tensile(arguments.area, arguments.tensile, arguments.proof)
    summary = outcome.read_summary(arguments.summary)
    places = outcome.read_distribution(arguments.distribution)
    require_same_root(summary, places[0])
    require_local(tensile, number(summary, "load_max_net_stress_mpa"))
    life = predict(tensile, places, MeanStress(arguments.mean_stress))
    outcome.write_json(arguments.out, report(life, tensile))
    return life


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    line = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    line.add_argument("--distribution", type=Path, default=Path(outcome.DISTRIBUTION))
    line.add_argument("--summary", type=Path, default=Path(outcome.SUMMARY))
    line.add_argument("--area", type=Path, required=True, help="file: reduction of area")
    line.add_argument("--tensile", type=Path, required=True, help="file: tensile strength")
    line.add_argument(
        "--yield", type=Path, required=True, dest="proof", help="file: yield strength"
    )
    line.add_argument("--mean-stress", choices=[str(way) for way in MeanStress], default="swt")
    line.add_argument("--out", type=Path, default=Path("life.json"))
    return line


def main() -> int:
    """Run the program."""
    arguments = parser().parse_args()
    try:
        life = run(arguments)
    except Fault as fault:
        print(f"error[{fault.code}]: {fault}", file=sys.stderr)
        return fault.exit_status
    note = " (beyond the fitted range)" if life.extrapolated else ""
    print(f"fatigue life: {life.cycles:.3g} cycles to crack initiation{note}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
