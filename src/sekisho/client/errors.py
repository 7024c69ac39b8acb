"""How a job can end other than well, and what else its submitter may meet.

    SekishoError
    ├── CommandFailed    command.failed     1    it ran, and its exit code or its outputs say no
    ├── JobCancelled     job.cancelled     80    never started, or seen dead
    ├── JobGoesOn        job.goes_on       81    not ended in the time given (also a TimeoutError)
    ├── JobExpired       job.expired       82    no agent of the site took it in time
    ├── SiteUnable       job.unable        71    the site could not carry it out
    ├── JobLost          job.lost          70    its fate is unknown; it may have run
    └── Refused
        └── JobRefused   job.refused       77    the site's policy said no; nothing ran

All but JobGoesOn have the `result`, whose ``code`` and ``params`` are the site's reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sekisho.domain.errors import Refused, SekishoError

if TYPE_CHECKING:
    from sekisho.client.result import Result


class JobError(SekishoError):
    """A job that did not end well; ``result`` says how."""

    code = "job.failed"
    exit_status = 1

    def __init__(self, result: Result) -> None:
        self.result = result
        params: dict[str, object] = {"job": result.job, "site": result.site}
        if result.code is not None:
            params["reason"] = result.code
        super().__init__(None, **params)


class CommandFailed(JobError):
    """The command ran to its end, and its exit code or its missing outputs say that it failed."""

    code = "command.failed"

    def __init__(self, result: Result) -> None:
        super().__init__(result)
        self.params |= {"exit_code": result.exit_code, "signal": result.signal}


class JobRefused(JobError, Refused):
    """The site's policy said no; nothing was run."""

    code = "job.refused"
    exit_status = 77
    http_status = 403


class SiteUnable(JobError):
    """The site wanted to, but could not carry the job out."""

    code = "job.unable"
    exit_status = 71


class JobCancelled(JobError):
    """The job was cancelled: it never started, or was seen dead."""

    code = "job.cancelled"
    exit_status = 80


class JobExpired(JobError):
    """No agent of the site took the job within its queue time."""

    code = "job.expired"
    exit_status = 82


class JobLost(JobError):
    """The fate of the job is unknown: it may have run, or not, or in part."""

    code = "job.lost"
    exit_status = 70


class JobGoesOn(SekishoError, TimeoutError):
    """The job has not ended in the time given. It goes on; wait again."""

    code = "job.goes_on"
    exit_status = 81
    retryable = True
