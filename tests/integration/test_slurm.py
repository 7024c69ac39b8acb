"""The batch scheduler with a real Slurm, through its own commands and through Torque's."""
# ruff: noqa: ASYNC240 - a test may block its own loop for a small local file

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.adapters.hosts.host_local import LocalHost
from sekisho.adapters.schedulers.batch import BatchScheduler
from sekisho.adapters.schedulers.dialects import DIALECTS
from sekisho.domain.resources import BatchSystem
from sekisho.site.scheduler import Exited, Gone, LaunchSpec, Observation, Scheduler, Ticket
from tests.contract.test_scheduler import IGNORE_TERM, SchedulerContract
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


class TestSlurm(SchedulerContract):
    @pytest.fixture
    async def scheduler(self, slurm: Slurm) -> Scheduler:
        return a_batch(slurm)

    def ended_by_force(self, seen: Observation) -> None:
        """Slurm kills the wrapper too: nothing runs, there is no record, and nobody guesses."""
        assert isinstance(seen, Gone)

    def never_submitted(self, spec: LaunchSpec) -> Ticket:
        return Ticket(
            token=spec.token,
            work_dir=spec.work_dir,
            control_dir=spec.control_dir,
            reference="999999",
        )

    async def test_a_job_has_the_environment_that_it_was_given_and_no_other(
        self, scheduler: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("LD_PRELOAD", "SBATCH_PARTITION", "SLURM_JOB_NAME", "PYTHONPATH", "BASH_ENV"):
            monkeypatch.setenv(name, "/hostile")
        env = {"CALC_DIR": "/w", "PATH": "/usr/bin:/bin", "N": "a 'b' $(id)\n#SBATCH --uid=0"}
        spec = a_launch(tmp_path, "/usr/bin/env", "-0", env=env)
        assert isinstance(await over(scheduler, await scheduler.submit(spec)), Exited)
        told = Path(spec.control_dir, "stdout").read_text().split("\0")[:-1]
        assert dict(entry.split("=", 1) for entry in told) == env


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
