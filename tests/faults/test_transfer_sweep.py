"""Many jobs over one large file: it crosses each line once, whatever the number of jobs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest

from tests.faults.test_bad_lines import TURN
from tests.faults.trio import Trio
from tests.proxy import Proxy

MIB: Final = 1 << 20
MESH: Final = 8 * MIB
JOBS: Final = 12
UP: Final = "PUT /v1/jobs/{id}/chunks"
DOWN: Final = "POST /v1/site/jobs/{id}/chunks/fetch"
BACK: Final = "PUT /v1/site/jobs/{id}/chunks"


def bytes_of(proxy: Proxy, route: str) -> int:
    """Return what went over the wire in the requests of ``route``, both ways together."""
    return sum(len(r.bytes) + len(answer) for r, answer in proxy.seen if r.route == route)


def sweep(trio: Trio, mesh: Path, jobs: int, first: int = 0) -> None:
    with trio.connect() as client:
        submitted = [
            client.submit(trio.spec(f"run-{n}", source=mesh)) for n in range(first, first + jobs)
        ]
        for number, job in enumerate(submitted):
            into = trio.home / f"got-{first + number}"
            assert job.result(into, timeout=120).exit_code == 0
            assert (into / "out/in/given").read_bytes() == mesh.read_bytes()


@pytest.fixture
def mesh(trio: Trio) -> Path:
    return trio.some_input(MESH)


def test_a_sweep_over_one_mesh_sends_it_once(trio: Trio, mesh: Path) -> None:
    sweep(trio, mesh, JOBS)
    for route in (UP, DOWN):
        assert MESH <= bytes_of(trio.proxy, route) < 1.05 * MESH, route
    assert bytes_of(trio.proxy, BACK) < 0.05 * MESH  # the broker has those bytes: they came from it
    assert sum(trio.starts().values()) == JOBS


def test_the_next_sweep_after_a_restart_of_the_agent_fetches_only_what_changed(
    trio: Trio, mesh: Path
) -> None:
    sweep(trio, mesh, 1)
    trio.agent.stop()
    trio.start_agent()
    trio.proxy.seen.clear()
    with mesh.open("r+b") as file:
        file.seek(MESH // 2)
        file.write(os.urandom(1000))
    sweep(trio, mesh, 2, first=1)
    for route in (UP, DOWN):
        assert bytes_of(trio.proxy, route) < MESH / 4, route


def test_the_outputs_of_a_repeated_run_leave_the_site_once(trio: Trio, mesh: Path) -> None:
    """None of them came in. Kills: a result that crosses the site's line again and again."""
    (trio.home / "work.sh").write_text(TURN)
    sizes = []
    with trio.connect() as client:
        for number, change in enumerate((b"", b"", b"other")):
            with mesh.open("r+b") as file:
                file.seek(MESH // 2)
                file.write(change)
            trio.proxy.seen.clear()
            into = trio.home / f"got-{number}"
            job = client.submit(trio.spec(f"run-{number}", source=mesh))
            assert job.result(into, timeout=120).exit_code == 0
            turned = mesh.read_bytes().translate(bytes([*range(1, 256), 0]))
            assert (into / "out/turned").read_bytes() == turned
            sizes.append(bytes_of(trio.proxy, BACK))
    first, again, changed = sizes
    assert MESH <= first < 1.05 * MESH
    assert again < 0.01 * MESH
    assert changed < 0.25 * MESH


def test_a_damaged_cache_costs_the_line_and_no_more(trio: Trio, mesh: Path) -> None:
    """Bits that flip on the site's disk reach no job."""
    sweep(trio, mesh, 1)
    for path in (trio.site / "state" / "cache").glob("*/*/*"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    trio.proxy.seen.clear()
    sweep(trio, mesh, 1, first=1)
    assert MESH <= bytes_of(trio.proxy, DOWN) < 1.05 * MESH
