"""The fixtures of the fault tests: one set-up for a worker, and a copy of it for every test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import ENGINES, Batch, a_batch
from tests.faults.trio import Trio, a_trio, make_template


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("template")
    make_template(home)
    return home


@pytest.fixture
def still(template: Path, tmp_path: Path) -> Iterator[Trio]:
    """A trio in which nothing runs yet."""
    with a_trio(template, tmp_path / "trio") as made:
        yield made


@pytest.fixture
def trio(still: Trio) -> Trio:
    """A trio in which broker and agent run."""
    still.start_broker()
    still.start_agent()
    return still


@pytest.fixture(params=ENGINES)
def batch(request: pytest.FixtureRequest) -> Iterator[Batch]:
    """A batch system; each of them, unless a module asks for one."""
    with a_batch(ENGINES[request.param]) as batch:
        yield batch


@pytest.fixture
def site(still: Trio, batch: Batch) -> Trio:
    """A broker and an agent whose command runs through the batch system."""
    batch.through(still)
    still.start_broker()
    still.start_agent()
    return still
