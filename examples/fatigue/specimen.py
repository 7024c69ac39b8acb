"""The quarter model of a flat specimen with a central hole: its mesh and the mesh's file.

The symmetry planes are x = 0 and y = 0, the load pulls along y, the notch root is the hole's edge
on y = 0. Elements are 8-node quadrilaterals in the order of Abaqus and CalculiX (corners
counter-clockwise, then the middles of the sides). The file is such a solver's own input, so that a
site can replace the made-up specimen by a real one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from examples.fatigue.curve import Array
from examples.fatigue.fault import BadInput

Indices = npt.NDArray[np.int64]

FILE_NAME = "specimen.inp"
ELEMENT_TYPE = "CPS8R"
MAX_NODES = 3000


class Plate(NamedTuple):
    """Shape of the plate in mm: radius of the hole, half width, half length."""

    radius: float
    half_width: float
    half_length: float


@dataclass(frozen=True)
class Specimen:
    """Nodes (n, 2) in mm and elements (m, 8) as indices of nodes; the thickness is 1 mm."""

    nodes: Array
    elements: Indices

    @cached_property
    def plate(self) -> Plate:
        """The shape, read off the extreme nodes."""
        ligament = self.nodes[self.ligament, 0]
        return Plate(float(ligament[0]), float(ligament[-1]), float(self.nodes[:, 1].max()))

    @cached_property
    def ligament(self) -> Indices:
        """Nodes of the net section (y = 0), from the notch root outwards."""
        found = self.on(1, 0.0)
        return found[np.argsort(self.nodes[found, 0])]

    @property
    def root(self) -> int:
        """The node at the notch root."""
        return int(self.ligament[0])

    def on(self, axis: int, value: float) -> Indices:
        """Nodes whose coordinate along the axis (0: x, 1: y) is the value (mm)."""
        size = float(np.abs(self.nodes).max())
        return np.flatnonzero(np.abs(self.nodes[:, axis] - value) < 1e-6 * size)

    def pull(self) -> Array:
        """Nodal forces (n,) along y, in N, of a traction of 1 MPa on the loaded end."""
        forces = np.zeros(len(self.nodes))
        end = set(self.on(1, self.plate.half_length).tolist())
        for side in ((0, 4, 1), (1, 5, 2), (2, 6, 3), (3, 7, 0)):
            for first, middle, last in self.elements[:, side]:
                if {int(first), int(middle), int(last)} <= end:
                    length = abs(self.nodes[last, 0] - self.nodes[first, 0])
                    forces[[first, middle, last]] += length * np.array([1.0, 4.0, 1.0]) / 6.0
        return forces


def make_specimen(plate: Plate, fineness: int) -> Specimen:
    """Mesh a plate; `fineness` (≥ 2) is the number of elements along 45 degrees of the hole."""
    radius, width, length = plate
    rings = 2 * fineness
    grading = np.linspace(0.0, 1.0, rings + 1) ** 1.7
    even = np.linspace(0.0, 1.0, fineness + 1)
    upper = np.linspace(0.0, 1.0, fineness + 1) ** 1.3

    def around(outer: Array, start: float, u: Array, v: Array) -> Array:
        angle = start + v * np.pi / 4.0
        inner = radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        return inner + u[..., None] * (outer - inner)

    def right(u: Array, v: Array) -> Array:
        return around(width * np.stack([np.ones_like(v), v], axis=-1), 0.0, u, v)

    def top(u: Array, v: Array) -> Array:
        return around(width * np.stack([1.0 - v, np.ones_like(v)], axis=-1), np.pi / 4.0, u, v)

    def block(u: Array, v: Array) -> Array:
        return np.stack([width * (1.0 - v), width + u * (length - width)], axis=-1)

    patches = [_patch(shape, grading, even) for shape in (right, top)]
    return _join([*patches, _patch(block, upper, even)])


def _patch(shape: Callable[[Array, Array], Array], along_u: Array, along_v: Array) -> Array:
    """Coordinates (m, 8, 2) of the elements of one mapped rectangle."""
    u, v = _halved(along_u), _halved(along_v)
    grid = shape(*np.meshgrid(u, v, indexing="ij"))
    places = ((0, 0), (2, 0), (2, 2), (0, 2), (1, 0), (2, 1), (1, 2), (0, 1))
    rows, columns = grid.shape[0], grid.shape[1]
    corners = [grid[i : rows - 2 + i : 2, j : columns - 2 + j : 2] for i, j in places]
    return np.stack(corners, axis=2).reshape(-1, 8, 2)


def _halved(values: Array) -> Array:
    """Put the middle of each interval between its ends."""
    middles = 0.5 * (values[1:] + values[:-1])
    return np.insert(values, np.arange(1, len(values)), middles)


def _join(patches: list[Array]) -> Specimen:
    """Make one node of all the corners and middles at one place."""
    places = np.concatenate(patches).reshape(-1, 2)
    scale = float(np.abs(places).max())
    _, first, index = np.unique(
        np.round(places / scale, 9) + 0.0, axis=0, return_index=True, return_inverse=True
    )
    return Specimen(places[first], index.reshape(-1, 8).astype(np.int64))


def to_inp(specimen: Specimen, canary: str) -> str:
    """Write the mesh as the text of its file."""
    lines = [f"** SECRET specimen mesh. Canary: {canary}", "*NODE, NSET=NALL"]
    lines += [f"{k}, {x:.10g}, {y:.10g}" for k, (x, y) in enumerate(specimen.nodes, 1)]
    lines.append(f"*ELEMENT, TYPE={ELEMENT_TYPE}, ELSET=EALL")
    lines += [
        f"{k}, " + ", ".join(str(n + 1) for n in nodes)
        for k, nodes in enumerate(specimen.elements.tolist(), 1)
    ]
    return "\n".join(lines) + "\n"


def read_specimen(path: Path) -> Specimen:
    """Read a mesh file; anything but nodes and 8-node plane-stress elements is `BadInput`."""
    try:
        rows = _rows(path.read_text(encoding="utf-8"))
        nodes = np.array(rows["*NODE"], dtype=np.float64)
        elements = np.array(rows["*ELEMENT"], dtype=np.int64)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput("the specimen's mesh cannot be read") from error
    shaped = nodes.ndim == 2 and nodes.shape[1] == 3 and elements.ndim == 2
    if not shaped or elements.shape[1] != 9 or len(nodes) > MAX_NODES:
        raise BadInput("the specimen's mesh has a wrong shape")
    numbers = nodes[:, 0].astype(np.int64)
    index = np.searchsorted(numbers, elements[:, 1:])
    if np.any(np.diff(numbers) <= 0) or index.max() >= len(numbers):
        raise BadInput("the specimen's nodes are not in ascending order")
    if np.any(numbers[index] != elements[:, 1:]):
        raise BadInput("an element of the specimen names an unknown node")
    return Specimen(nodes[:, 1:], index.astype(np.int64))


def _rows(text: str) -> dict[str, list[list[str]]]:
    """Split the file into the rows of each of its keywords."""
    rows: dict[str, list[list[str]]] = {}
    current: list[list[str]] = []
    for line in text.split("\n"):
        if line.startswith("**") or not line.strip():
            continue
        if line.startswith("*"):
            current = rows.setdefault(line.split(",")[0].strip().upper(), [])
        else:
            current.append(line.split(","))
    return rows
