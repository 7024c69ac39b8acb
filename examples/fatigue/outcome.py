"""The three files that a site may give back: a table, a picture, a summary.

The table has fixed stations from the notch root to the edge, not the nodes of the mesh, and the
picture draws no mesh: the result is given, the model is not.
"""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from examples.fatigue.curve import Array
from examples.fatigue.fault import BadInput
from examples.fatigue.notch import ALONG, Check, Cycle, LoadCycle, heywood_kt, numeric_kt
from examples.fatigue.solution import Solved

DISTRIBUTION = "stress_distribution.csv"
PICTURE = "stress.png"
SUMMARY = "summary.json"

STATIONS = 41


@dataclass(frozen=True, slots=True)
class Station:
    """One place of the net section, `distance_mm` from the notch root; `yy` is along the load.

    `max` is the state at the cycle's largest load, `amplitude` half the range over the cycle.
    """

    distance_mm: float
    x_mm: float
    y_mm: float
    von_mises_max_mpa: float
    plastic_strain_max: float
    stress_yy_max_mpa: float
    strain_yy_max: float
    stress_yy_amplitude_mpa: float
    strain_yy_amplitude: float


def stations(solved: Solved, cycle: Cycle) -> tuple[Station, ...]:
    """Sample the fields at fixed shares of the ligament, denser towards the notch."""
    specimen = solved.specimen
    nodes = specimen.ligament
    along = specimen.nodes[nodes, 0]
    radius, edge = specimen.plate.radius, specimen.plate.half_width
    places = radius + (edge - radius) * np.linspace(0.0, 1.0, STATIONS) ** 2

    def sample(field: Array) -> Array:
        return np.interp(places, along, field[nodes])

    peak, half = cycle.maximum, cycle.amplitude
    columns = (
        places - radius,
        places,
        np.zeros(STATIONS),
        sample(peak.von_mises),
        sample(peak.plastic_strain),
        sample(peak.stress[:, ALONG]),
        sample(peak.strain[:, ALONG]),
        sample(half.stress[:, ALONG]),
        sample(half.strain[:, ALONG]),
    )
    return tuple(Station(*(float(value) for value in row)) for row in zip(*columns, strict=True))


def write_distribution(path: Path, rows: tuple[Station, ...]) -> None:
    """Write the table as CSV with a header line."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([field.name for field in fields(Station)])
        table.writerows([f"{value:.8g}" for value in asdict(row).values()] for row in rows)


def read_distribution(path: Path) -> tuple[Station, ...]:
    """Read the table; a missing column or a value that is no number is `BadInput`."""
    names = [field.name for field in fields(Station)]
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [[float(row[name]) for name in names] for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise BadInput(f"{path.name}: not a stress distribution") from error
    if not rows or not np.isfinite(rows).all():
        raise BadInput(f"{path.name}: not a stress distribution")
    return tuple(Station(*row) for row in rows)


def summary(
    solved: Solved, cycle: Cycle, load: LoadCycle, checks: tuple[Check, ...]
) -> dict[str, object]:
    """Return what a person wants to know first; units are in the names."""
    root = solved.specimen.root
    peak, half = cycle.maximum, cycle.amplitude
    largest = float(peak.stress[root, ALONG])
    amplitude = float(half.stress[root, ALONG])
    return {
        "solver": solved.solver,
        "load_max_net_stress_mpa": load.max_stress,
        "load_ratio": load.ratio,
        "kt_numeric": round(numeric_kt(solved, cycle.elastic), 4),
        "kt_reference": round(heywood_kt(solved.specimen.plate), 4),
        "kt_source": "R. B. Heywood, Designing by Photoelasticity (1952)",
        "notch_stress_max_mpa": round(largest, 2),
        "notch_stress_amplitude_mpa": round(amplitude, 2),
        "notch_stress_mean_mpa": round(largest - amplitude, 2),
        "notch_strain_max": round(float(peak.strain[root, ALONG]), 7),
        "notch_strain_amplitude": round(float(half.strain[root, ALONG]), 7),
        "notch_plastic_strain_max": round(float(peak.plastic_strain[root]), 7),
        "checks": {item.name: round(item.value, 5) for item in checks},
    }


def write_json(path: Path, value: dict[str, object]) -> None:
    """Write a JSON object for people and programs."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_summary(path: Path) -> dict[str, object]:
    """Read the summary; anything but a JSON object is `BadInput`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path.name}: not a summary") from error
    if not isinstance(value, dict):
        raise BadInput(f"{path.name}: not a summary")
    return value
