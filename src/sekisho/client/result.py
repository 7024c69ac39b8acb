"""How a job ended, in the submitter's hands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from sekisho.client.errors import (
    CommandFailed,
    JobCancelled,
    JobError,
    JobExpired,
    JobLost,
    JobRefused,
    SiteUnable,
)
from sekisho.domain.job import JobState
from sekisho.wire.envelope import Outcome, TreeRef, open_outcome
from sekisho.wire.v1 import JobView

_SIGNAL_BASE: Final = 128
_ERRORS: Final[Mapping[str, type[JobError]]] = {
    JobState.REFUSED: JobRefused,
    JobState.CANCELLED: JobCancelled,
    JobState.EXPIRED: JobExpired,
    JobState.LOST: JobLost,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One ended job. ``files`` are those fetched; ``code`` and ``params`` the site's reason.

    ``exit_code`` is the command's own, or None when it did not run to an end.
    """

    job: str
    site: str
    state: str
    exit_code: int | None = None
    signal: int | None = None
    code: str | None = None
    params: Mapping[str, str | int] = field(default_factory=dict)
    started_at: datetime | None = None
    ended_at: datetime | None = None
    files: tuple[Path, ...] = ()
    receipt: str | None = None  #: the site's log has the record of this release under this digest
    lost_by: str | None = None  #: who declared a lost job lost
    outputs: TreeRef | None = field(default=None, repr=False)

    @property
    def ok(self) -> bool:
        return self.state == JobState.SUCCEEDED

    @property
    def exit_status(self) -> int:
        """The status for a program that stands in for the command: 0 only if all is well."""
        if self.ok:
            return 0
        if self.state in _ERRORS:
            return self.error().exit_status
        if self.signal:
            return _SIGNAL_BASE + self.signal
        return self.exit_code or self.error().exit_status

    def check(self) -> Result:
        """Return this result if the job succeeded, else raise the error that says how it ended."""
        if self.ok:
            return self
        raise self.error()

    def error(self) -> JobError:
        """Return the error that a job which ended like this means; only if it is not `ok`."""
        unable = self.exit_code is None and not self.signal
        kind = _ERRORS.get(self.state, SiteUnable if unable else CommandFailed)
        return kind(self)


def result_of(view: JobView) -> Result:
    """Return the result of an ended job, without its files."""
    if view.result is None:
        return Result(job=view.id, site=view.site, state=view.state, lost_by=view.lost_by)
    outcome: Outcome = open_outcome(view.result)
    return Result(
        job=view.id,
        site=view.site,
        state=view.state,
        exit_code=outcome.exit_code,
        signal=outcome.signal,
        code=outcome.code,
        params=outcome.params,
        started_at=outcome.started_at,
        ended_at=outcome.ended_at,
        receipt=outcome.receipt,
        lost_by=view.lost_by,
        outputs=outcome.outputs,
    )
