"""The old programs at the lines of the test's own `house`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.old_programs import House, OldAgent, OldWorkflow


@pytest.fixture
def workflow(house: House) -> Iterator[OldWorkflow]:
    with house.line() as line:
        yield OldWorkflow(line)


@pytest.fixture
def agent(house: House, tmp_path: Path) -> Iterator[OldAgent]:
    """An agent before which nothing of an earlier test waits."""
    with house.line() as line:
        agent = OldAgent(line, tmp_path / "calc")
        while agent.ask():
            pass
        yield agent
