"""The batch scheduler with a real Grid Engine."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from sekisho.adapters.hosts.host_local import LocalHost
from sekisho.adapters.schedulers.batch import BatchScheduler
from sekisho.adapters.schedulers.dialects import DIALECTS
from sekisho.domain.resources import BatchSystem, Resources
from sekisho.site.scheduler import Exited, Gone, Scheduler
from tests.contract.batch_scheduler import BatchContract
from tests.contract.test_scheduler import IGNORE_TERM, POLITE
from tests.gridengine import PROGRAMS, GridEngine, a_gridengine
from tests.launching import SHELL, a_gate, a_launch, filled, over, release, runs


@pytest.fixture(scope="module")
def engine() -> Iterator[GridEngine]:
    with tempfile.TemporaryDirectory(prefix="sge-") as base, a_gridengine(Path(base) / "s") as it:
        yield it


def a_batch(engine: GridEngine) -> BatchScheduler:
    system = BatchSystem(
        name="trial",
        dialect="sge",
        submit=(f"{PROGRAMS}/qsub",),
        status=(f"{PROGRAMS}/qstat",),
        cancel=(f"{PROGRAMS}/qdel",),
        environment=engine.environment,
        poll_s=0.2,
        poll_max_s=1.0,
        settle_s=1.0,
        timeout_s=30.0,
    )
    return BatchScheduler(LocalHost(), DIALECTS["sge"], system)


class TestGridEngine(BatchContract):
    @pytest.fixture
    async def scheduler(self, engine: GridEngine) -> Scheduler:
        return a_batch(engine)

    async def test_a_polite_cancel_ends_the_command_and_its_children(
        self, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        """This `qdel` is not polite unless a job was submitted so: it kills at once."""
        spec = a_launch(tmp_path, *SHELL, f"sh -c '{POLITE}'; exit 9")
        a_gate(spec)
        ticket = await scheduler.submit(spec)
        child = int(await filled(Path(spec.work_dir, "pid")))
        await scheduler.cancel(ticket, force=False)
        assert await over(scheduler, ticket) == Gone()
        assert not runs(child)

    async def test_a_command_that_ignores_the_polite_cancel_is_ended_by_force(
        self, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        spec = a_launch(tmp_path, *SHELL, IGNORE_TERM)
        a_gate(spec)
        ticket = await scheduler.submit(spec)
        await filled(Path(spec.work_dir, "pid"))
        await scheduler.cancel(ticket, force=False)
        assert await over(scheduler, ticket) == Gone()

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
        self, scheduler: Scheduler, engine: GridEngine, tmp_path: Path
    ) -> None:
        ended = await scheduler.submit(a_launch(tmp_path, *SHELL, "exit 3"))
        first = await over(scheduler, ended)
        engine.kill("sge_execd")
        engine.kill("sge_qmaster")
        (engine.base / "qmaster/jobseqnum").write_text(f"{int(ended.reference) - 1}\n")
        engine.start_master()
        engine.start_node()
        spec = a_launch(tmp_path, *SHELL, POLITE)
        gate = a_gate(spec)
        other = await scheduler.submit(spec)
        assert other.reference == ended.reference
        await filled(Path(spec.work_dir, "pid"))
        await scheduler.cancel(ended, force=True)
        assert await scheduler.observe([ended]) == {ended: first}
        await anyio.to_thread.run_sync(release, gate)
        assert isinstance(await over(scheduler, other), Exited)
