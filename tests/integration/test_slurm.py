"""The batch scheduler with a real Slurm, through its own commands and through Torque's."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.adapters.hosts.host_local import LocalHost
from sekisho.adapters.schedulers.batch import BatchScheduler
from sekisho.adapters.schedulers.dialects import DIALECTS
from sekisho.domain.resources import BatchSystem
from sekisho.site.scheduler import Gone, Scheduler
from tests.contract.batch_scheduler import BatchContract
from tests.contract.test_scheduler import IGNORE_TERM
from tests.launching import SHELL, a_gate, a_launch, filled, over
from tests.slurm import Slurm, a_slurm


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    with tempfile.TemporaryDirectory(prefix="slurm-") as base, a_slurm(Path(base) / "s") as slurm:
        yield slurm


def a_batch(slurm: Slurm, dialect: str = "slurm") -> BatchScheduler:
    system = BatchSystem(
        name="trial",
        dialect=dialect,
        environment=slurm.environment,
        poll_s=0.2,
        poll_max_s=1.0,
        settle_s=1.0,
        timeout_s=30.0,
    )
    return BatchScheduler(LocalHost(), DIALECTS[dialect], system)


class TestSlurm(BatchContract):
    @pytest.fixture
    async def scheduler(self, slurm: Slurm) -> Scheduler:
        return a_batch(slurm)


class TestTorqueCommandsOfSlurm(TestSlurm):
    @pytest.fixture
    async def scheduler(self, slurm: Slurm) -> Scheduler:
        return a_batch(slurm, "torque")

    async def test_a_command_that_ignores_the_polite_cancel_is_ended_by_force(
        self, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        """This `qdel` is never polite: it kills at once."""
        spec = a_launch(tmp_path, *SHELL, IGNORE_TERM)
        a_gate(spec)
        ticket = await scheduler.submit(spec)
        await filled(Path(spec.work_dir, "pid"))
        await scheduler.cancel(ticket, force=False)
        assert await over(scheduler, ticket) == Gone()
