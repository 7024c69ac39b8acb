"""What every batch system must do besides: `SchedulerContract` for jobs in a queue."""
# ruff: noqa: ASYNC240 - a test may block its own loop for a small local file

from __future__ import annotations

from pathlib import Path

import pytest

from sekisho.site.scheduler import Exited, Gone, LaunchSpec, Observation, Scheduler, Ticket
from tests.contract.test_scheduler import SchedulerContract
from tests.launching import a_launch, over


class BatchContract(SchedulerContract):
    def ended_by_force(self, seen: Observation) -> None:
        """The wrapper is killed too: nothing runs, there is no record, and nobody guesses."""
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
