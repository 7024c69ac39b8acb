"""The public Python surface. What is imported from `sekisho` itself keeps its meaning (semver).

    import sekisho

    with sekisho.connect() as client:
        job = client.submit(sekisho.JobSpec(
            site="tohoku", command="fatigue",
            inputs={"model.inp": "work/model.inp"},
            parameters={"cycles": 1000},
            outputs=["stress.csv"],
        ))
        result = job.result("results")       # waits; raises CommandFailed, JobRefused, …
        print(result.files)

A parameter study, many jobs at once:

    with sekisho.connect() as client, sekisho.Executor(client, "tohoku", into="study") as pool:
        loads = [{"load": load} for load in (10, 20, 30)]
        for result in pool.map("fatigue", loads, inputs=["model.inp"], outputs=["life.txt"]):
            print(result.job, result.files)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from sekisho.client.client import Client, new_job_id
from sekisho.client.errors import (
    CommandFailed,
    JobCancelled,
    JobError,
    JobExpired,
    JobGoesOn,
    JobLost,
    JobRefused,
    SiteUnable,
)
from sekisho.client.job import Job
from sekisho.client.result import Result
from sekisho.client.snapshot import Snapshot
from sekisho.client.spec import Inputs, JobSpec, PathLike
from sekisho.domain.errors import SekishoError
from sekisho.domain.parameter import Value

__all__ = [
    "Client",
    "CommandFailed",
    "Executor",
    "Job",
    "JobCancelled",
    "JobError",
    "JobExpired",
    "JobGoesOn",
    "JobLost",
    "JobRefused",
    "JobSpec",
    "Result",
    "SekishoError",
    "SiteUnable",
    "Snapshot",
    "connect",
    "new_job_id",
]


def connect(config: PathLike | None = None) -> Client:
    """Return a client for the broker of ``config``.

    Without ``config`` the settings are those that `$SEKISHO_CONFIG` names, else
    `~/.config/sekisho/client.toml`; `sekisho client init` writes them. Nothing is sent yet. Raise
    ConfigError when the settings, or the file with the token, are not as they should be.
    """
    from sekisho.compose.client import client  # noqa: PLC0415 (HTTP is loaded when it is needed)

    return client(None if config is None else Path(config))


class Executor:
    """Runs commands of one site as futures, in the style of `concurrent.futures`.

    Each job's files arrive in a folder of their own below ``into``, named by the job's id. At most
    ``max_jobs`` are under way at once. Leaving the context waits for all of them.
    """

    def __init__(self, client: Client, site: str, *, into: PathLike, max_jobs: int = 16) -> None:
        self._client = client
        self._site = site
        self._into = Path(into)
        self._threads = ThreadPoolExecutor(max_jobs, thread_name_prefix="sekisho")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.shutdown(cancel_futures=error is not None)

    def submit(
        self,
        command: str,
        /,
        *,
        inputs: Inputs = (),
        outputs: Sequence[str] = (),
        **parameters: Value,
    ) -> Future[Result]:
        """Return the future of one job; its `result` raises what `Job.result` raises."""
        spec = JobSpec(
            site=self._site,
            command=command,
            parameters=parameters,
            inputs=inputs,
            outputs=outputs,
        )
        return self._threads.submit(self._run, spec)

    def map(
        self,
        command: str,
        parameters: Iterable[Mapping[str, Value]],
        /,
        *,
        inputs: Inputs = (),
        outputs: Sequence[str] = (),
    ) -> Iterator[Result]:
        """Run ``command`` once for each of ``parameters``; return the results in that order."""
        futures = [
            self.submit(command, inputs=inputs, outputs=outputs, **values) for values in parameters
        ]
        return (future.result() for future in futures)

    def shutdown(self, *, cancel_futures: bool = False) -> None:
        """Wait for what is under way; with ``cancel_futures``, drop what was not yet submitted."""
        self._threads.shutdown(wait=True, cancel_futures=cancel_futures)

    def _run(self, spec: JobSpec) -> Result:
        job = self._client.submit(spec)
        return job.result(self._into / job.id)
