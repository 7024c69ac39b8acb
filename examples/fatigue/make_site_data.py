"""Make the site's secrets for the demo: a mesh and a material model, into a private directory.

`make_site_data.py DIRECTORY` draws shape and coefficients at random, so that no copy of them is in
the repository, and prints one JSON object: the paths of both files and the random canary strings
in them, for which the demo then searches everything that left the site. The directory must not
exist yet; it gets mode 0700, the files 0600.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.fatigue import site_model, specimen
from examples.fatigue.site_model import SiteModel
from examples.fatigue.specimen import Plate

FINENESS = 8


def draw_plate(dice: random.Random) -> Plate:
    """Draw a plate (mm), long enough that its ends do not feel the hole."""
    half_width = dice.uniform(10.0, 15.0)
    return Plate(half_width * dice.uniform(0.18, 0.32), half_width, 2.5 * half_width)


def draw_model(dice: random.Random) -> SiteModel:
    """Draw the coefficients of a plausible steel."""
    return SiteModel(
        modulus=dice.uniform(203_000.0, 209_000.0),
        poisson=dice.uniform(0.28, 0.30),
        stabilised=dice.uniform(0.75, 0.95),
        strength_factor=dice.uniform(0.96, 1.04),
    )


def make_site_data(directory: Path, dice: random.Random) -> dict[str, object]:
    """Write both files and return their paths and canaries."""
    directory.mkdir(mode=0o700)
    canaries = {name: f"canary-{name}-{secrets.token_hex(16)}" for name in ("mesh", "material")}
    mesh = specimen.make_specimen(draw_plate(dice), FINENESS)
    _write(directory / specimen.FILE_NAME, specimen.to_inp(mesh, canaries["mesh"]))
    _write(
        directory / site_model.FILE_NAME, site_model.to_toml(draw_model(dice), canaries["material"])
    )
    return {
        "mesh": str(directory / specimen.FILE_NAME),
        "material": str(directory / site_model.FILE_NAME),
        "canaries": list(canaries.values()),
    }


def _write(path: Path, text: str) -> None:
    """Create a file that only its owner can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def main() -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description="make the site's secret mesh and material model")
    parser.add_argument("directory", type=Path, help="a new directory for the secrets")
    arguments = parser.parse_args()
    made = make_site_data(arguments.directory.absolute(), random.SystemRandom())
    print(json.dumps(made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
