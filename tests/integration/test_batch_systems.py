"""The batch scheduler with a real Slurm, by its own commands and Torque's, and a Grid Engine."""

# ruff: noqa: ASYNC240 - a test may block its own loop for a small local file

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from sekisho.adapters.hosts.host_local import LocalHost
from sekisho.adapters.schedulers.batch import BatchScheduler
from sekisho.adapters.schedulers.dialects import DIALECTS
from sekisho.domain.resources import BatchSystem, Resources
from sekisho.site.scheduler import Exited, Gone, Observation, Scheduler
from tests.contract.batch_scheduler import BatchContract
from tests.contract.test_scheduler import POLITE
from tests.engines import GRID_ENGINE, SLURM, Batch, a_batch
from tests.launching import SHELL, a_gate, a_launch, filled, over, release


@pytest.fixture(scope="module")
def slurm() -> Iterator[Batch]:
    with a_batch(SLURM) as batch:
        yield batch


@pytest.fixture(scope="module")
def grid_engine() -> Iterator[Batch]:
    with a_batch(GRID_ENGINE) as batch:
        yield batch


def a_scheduler(batch: Batch, dialect: str = "") -> BatchScheduler:
    system = BatchSystem(
        name="trial",
        dialect=dialect or batch.engine.dialect,
        environment=batch.it.environment,
        poll_s=0.2,
        poll_max_s=1.0,
        settle_s=1.0,
        timeout_s=30.0,
        **batch.engine.commands,
    )
    return BatchScheduler(LocalHost(), DIALECTS[system.dialect], system)


class TestSlurm(BatchContract):
    @pytest.fixture
    async def scheduler(self, slurm: Batch) -> Scheduler:
        return a_scheduler(slurm)


class KillingContract(BatchContract):
    """For a `qdel` that is not polite, and kills at once."""

    leaves_what_ignores_it = False

    def ended_by_force(self, seen: Observation) -> None:
        assert seen == Gone()


class TestTorqueCommandsOfSlurm(KillingContract):
    @pytest.fixture
    async def scheduler(self, slurm: Batch) -> Scheduler:
        return a_scheduler(slurm, "torque")


class TestGridEngine(KillingContract):
    @pytest.fixture
    async def scheduler(self, grid_engine: Batch) -> Scheduler:
        return a_scheduler(grid_engine)

    def ended_politely(self, seen: Observation) -> None:
        assert seen == Gone()

    async def test_a_site_that_wants_a_warning_first_gets_an_exit_record_too(
        self, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        """With the site's own word `-notify`, Grid Engine warns by a signal before it kills."""
        spec = a_launch(tmp_path, *SHELL, POLITE)
        spec = replace(spec, resources=Resources(directives=("-notify",)))
        a_gate(spec)
        ticket = await scheduler.submit(spec)
        await filled(Path(spec.work_dir, "pid"))
        await scheduler.cancel(ticket, force=False)
        seen = await over(scheduler, ticket)
        assert isinstance(seen, Exited)
        assert seen.exit.signal == signal.SIGUSR2

    async def test_a_number_that_is_used_again_is_somebody_elses_job(
        self, scheduler: Scheduler, grid_engine: Batch, tmp_path: Path
    ) -> None:
        ended = await scheduler.submit(a_launch(tmp_path, *SHELL, "exit 3"))
        first = await over(scheduler, ended)
        grid_engine.kill_node()
        grid_engine.kill_master()
        numbers = Path(grid_engine.it.base, "qmaster/jobseqnum")
        numbers.write_text(f"{int(ended.reference) - 1}\n")
        grid_engine.start_master()
        grid_engine.start_node()
        spec = a_launch(tmp_path, *SHELL, POLITE)
        gate = a_gate(spec)
        other = await scheduler.submit(spec)
        assert other.reference == ended.reference
        await filled(Path(spec.work_dir, "pid"))
        await scheduler.cancel(ended, force=True)
        assert await scheduler.observe([ended]) == {ended: first}
        await anyio.to_thread.run_sync(release, gate)
        assert isinstance(await over(scheduler, other), Exited)
