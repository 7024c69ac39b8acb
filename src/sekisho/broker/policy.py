"""What the operator allows: quotas, retention, patience. Replaced as a whole by a reload."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from sekisho.domain.limits import MAX_QUEUE_TIME

GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What a site, or a submitter, may hold together."""

    live_jobs: int
    stored_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Everything that can change while the broker runs."""

    site: Quota = Quota(live_jobs=10_000, stored_bytes=500 * GIB)
    submitter: Quota = Quota(live_jobs=5_000, stored_bytes=200 * GIB)
    job_bytes: int = 100 * GIB
    free_floor_bytes: int = GIB
    queue_time: timedelta = MAX_QUEUE_TIME  #: the longest that a submitter may ask for
    keep_received: timedelta = timedelta(days=7)
    keep_unreceived: timedelta = timedelta(days=60)
    unreachable_after: timedelta = timedelta(minutes=10)


@dataclass(slots=True)
class CurrentPolicy:
    """The policy that holds now; services look at it anew for every decision."""

    value: Policy = field(default_factory=Policy)
