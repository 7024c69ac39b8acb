"""The finite element solver of the demo: plane stress, small strains, Newton's method.

scikit-fem supplies mapping, shape functions and quadrature (8-node serendipity elements, 2 x 2
points), scipy the sparse solution; the law and its consistent tangent are in `plasticity`. Axes of
the arrays: e elements, q points, i strain components [xx, yy, xy], a element degrees of freedom.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import spsolve
from skfem import Basis, ElementQuadS2, ElementVector, MeshQuad, MeshQuad2

from examples.fatigue.curve import Array
from examples.fatigue.fault import Unsolved
from examples.fatigue.model import Model
from examples.fatigue.plasticity import Material, Response, State, respond
from examples.fatigue.solution import Solution, Solved
from examples.fatigue.specimen import Indices, Specimen

TOLERANCE = 1e-8
MAX_ITERATIONS = 25
INCREMENTS = 6
"""Increments of the load from one asked-for load to the next."""


@dataclass(frozen=True, slots=True)
class Discretisation:
    """Strain operator (e, q, 3, 16), weights (e, q), numbering (e, 16), free ones, pull, points.

    `points` (8, q) carries values from the points to the nodes of an element.
    """

    operator: Array
    weights: Array
    numbering: Indices
    free: Indices
    pull: Array
    points: Array


def discretise(specimen: Specimen) -> Discretisation:
    """Prepare everything that does not depend on load or material."""
    basis = Basis(_mesh(specimen), ElementVector(ElementQuadS2()), intorder=3)
    gradients = np.stack([field.grad for (field,) in basis.basis], axis=-1)
    operator = np.stack(
        [gradients[0, 0], gradients[1, 1], gradients[0, 1] + gradients[1, 0]], axis=2
    )
    numbering = basis.element_dofs.T.astype(np.int64)
    place = np.empty((len(specimen.nodes), 2), dtype=np.int64)
    place[specimen.elements] = numbering.reshape(-1, 8, 2)
    fixed = np.concatenate([place[specimen.on(0, 0.0), 0], place[specimen.on(1, 0.0), 1]])
    pull = np.zeros(basis.N)
    pull[place[:, 1]] = specimen.pull()
    return Discretisation(
        operator=operator,
        weights=basis.dx,
        numbering=numbering,
        free=np.setdiff1d(np.arange(basis.N), fixed),
        pull=pull,
        points=_bilinear(ElementQuadS2.doflocs.T) @ np.linalg.inv(_bilinear(basis.X)),
    )


def _mesh(specimen: Specimen) -> MeshQuad2:
    """Return the specimen as scikit-fem's quadratic mesh; the middle node follows the sides."""
    corners, index = np.unique(specimen.elements[:, :4], return_inverse=True)
    straight = MeshQuad(specimen.nodes[corners].T.copy(), index.reshape(-1, 4).T.copy())
    curved = MeshQuad2.from_mesh(straight)
    around = specimen.nodes[specimen.elements]
    middle = 0.5 * around[:, 4:].sum(axis=1) - 0.25 * around[:, :4].sum(axis=1)
    places = np.concatenate([around, middle[:, None]], axis=1)
    locations = curved.doflocs.copy()
    locations[:, curved.dofs.element_dofs.T] = places.transpose(2, 0, 1)
    return MeshQuad2(locations, curved.t)


def _bilinear(points: Array) -> Array:
    """Values of 1, x, y, xy at the points (2, k): an array (k, 4)."""
    x, y = points
    return np.stack([np.ones_like(x), x, y, x * y], axis=-1)


@dataclass(frozen=True, slots=True)
class Equilibrium:
    """A converged increment: displacement (N,), strain (e, q, 3), response of the points."""

    displacement: Array
    strain: Array
    response: Response


def solve(model: Model, tractions: tuple[float, ...]) -> Solved:
    """Pull the specimen to each of the ascending gross tractions (MPa), along one loading path."""
    grid = discretise(model.specimen)
    at = _unloaded(grid, model.material)
    solutions = []
    reached = 0.0
    for traction in tractions:
        for load in np.linspace(reached, traction, INCREMENTS + 1)[1:]:
            at = _pulled(grid, model.material, at, float(load))
        reached = traction
        solutions.append(_at_nodes(model.specimen, grid, traction, at))
    return Solved(f"scikit-fem {version('scikit-fem')}", model.specimen, tuple(solutions))


def _unloaded(grid: Discretisation, material: Material) -> Equilibrium:
    """Return the state at rest."""
    strain = np.zeros((*grid.weights.shape, 3))
    response = respond(material, strain, State.virgin(grid.weights.shape))
    return Equilibrium(np.zeros(len(grid.pull)), strain, response)


def _pulled(
    grid: Discretisation, material: Material, start: Equilibrium, load: float
) -> Equilibrium:
    """Find the equilibrium at the next load, by Newton's method."""
    displacement = start.displacement
    outer = load * grid.pull
    for _ in range(MAX_ITERATIONS):
        strain = _strain(grid, displacement)
        response = respond(material, strain, start.response.state)
        rest = (outer - _inner(grid, response.stress))[grid.free]
        if np.linalg.norm(rest) <= TOLERANCE * np.linalg.norm(outer):
            return Equilibrium(displacement, strain, response)
        step = spsolve(_stiffness(grid, response.tangent), rest)
        displacement = displacement.copy()
        displacement[grid.free] += step
    raise Unsolved("the finite element analysis did not converge")


def _strain(grid: Discretisation, displacement: Array) -> Array:
    """Strain (e, q, 3) of a displacement."""
    return np.asarray(np.einsum("eqia,ea->eqi", grid.operator, displacement[grid.numbering]))


def _inner(grid: Discretisation, stress: Array) -> Array:
    """Nodal forces (N,) that the stress (e, q, 3) holds in balance."""
    forces = np.einsum("eqia,eqi,eq->ea", grid.operator, stress, grid.weights, optimize=True)
    total = np.bincount(grid.numbering.ravel(), forces.ravel(), len(grid.pull))
    return total.astype(np.float64)


def _stiffness(grid: Discretisation, tangent: Array) -> object:
    """Sparse tangent stiffness of the free degrees of freedom."""
    weighted = tangent * grid.weights[..., None, None]
    local = np.einsum("eqia,eqij,eqjb->eab", grid.operator, weighted, grid.operator, optimize=True)
    rows = np.repeat(grid.numbering, 16, axis=1)
    columns = np.tile(grid.numbering, (1, 16))
    size = len(grid.pull)
    whole = coo_matrix((local.ravel(), (rows.ravel(), columns.ravel())), (size, size)).tocsc()
    return whole[grid.free][:, grid.free]


def _at_nodes(
    specimen: Specimen, grid: Discretisation, traction: float, found: Equilibrium
) -> Solution:
    """Carry the fields from the points to the nodes: bilinear in an element, mean of elements."""

    def nodal(values: Array) -> Array:
        at_corners = np.einsum("kq,eq->ek", grid.points, values)
        count = np.bincount(specimen.elements.ravel())
        return np.asarray(np.bincount(specimen.elements.ravel(), at_corners.ravel()) / count)

    stress, strain = found.response.stress, found.strain
    return Solution(
        traction=traction,
        stress=np.stack([nodal(stress[..., i]) for i in range(3)], axis=-1),
        strain=np.stack([nodal(strain[..., i]) for i in range(3)], axis=-1),
        plastic_strain=np.maximum(nodal(found.response.state.equivalent), 0.0),
    )
