"""A map of the von Mises stress at the largest load, as a PNG without the mesh."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.tri import Triangulation

from examples.fatigue.solution import Solution
from examples.fatigue.specimen import Indices, Specimen

TRIANGLES = ((0, 4, 7), (1, 5, 4), (2, 6, 5), (3, 7, 6), (4, 5, 7), (5, 6, 7))
"""Six triangles through the eight nodes of an element."""


def triangles(specimen: Specimen) -> Indices:
    """Split the elements into triangles (6 m, 3) of their nodes."""
    return specimen.elements[:, np.array(TRIANGLES)].reshape(-1, 3)


def draw(path: Path, specimen: Specimen, solution: Solution, title: str) -> None:
    """Draw the whole plate around the hole by mirroring the quarter."""
    figure = Figure(figsize=(6.0, 6.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(aspect="equal")
    stress = solution.von_mises
    levels = np.linspace(0.0, float(stress.max()), 25)
    corners = triangles(specimen)
    filled = None
    for side, end in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        x, y = (specimen.nodes * np.array([side, end])).T
        mirrored = corners if side * end > 0 else corners[:, ::-1]
        filled = axes.tricontourf(
            Triangulation(x, y, mirrored), stress, levels=levels, cmap=mpl.colormaps["turbo"]
        )
    reach = specimen.plate.half_width
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), xlabel="x [mm]", ylabel="y [mm]")
    axes.set_title(title)
    if filled is not None:
        figure.colorbar(filled, ax=axes, label="von Mises stress [MPa]", shrink=0.72)
    figure.savefig(path, metadata={"Software": None})
