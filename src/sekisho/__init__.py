"""sekisho: run one step of a workflow on a computer you may not reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sekisho.api import (
        Client,
        CommandFailed,
        Executor,
        Job,
        JobCancelled,
        JobError,
        JobExpired,
        JobGoesOn,
        JobLost,
        JobRefused,
        JobSpec,
        Result,
        SekishoError,
        SiteUnable,
        connect,
        new_job_id,
    )

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
    "__version__",
    "connect",
    "new_job_id",
]


def __getattr__(name: str) -> object:
    """Load the public surface when it is first used, so that `import sekisho` costs nothing."""
    if name not in __all__:
        raise AttributeError(f"module 'sekisho' has no attribute {name!r}")
    from sekisho import api  # noqa: PLC0415

    return getattr(api, name)
