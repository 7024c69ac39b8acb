"""Query parameters of the routes that take some. None of them says who the caller is."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from sekisho.domain.job import JobState
from sekisho.domain.limits import MAX_EARLY_BYTES
from sekisho.wire.v1 import Epoch, Instance, JobId, SiteName

#: A long poll is answered within this, whatever was asked.
MAX_WAIT_SECONDS = 30.0
Seconds = Annotated[float, Meta(ge=0, le=MAX_WAIT_SECONDS)]


class JobWait(Struct, frozen=True, kw_only=True):
    """Answer when the job's version is not ``version``, when it ended, or after ``wait_s``.

    With ``end`` true, not before the job has ended or the time is over.
    """

    version: int | None = None
    wait_s: Seconds = 0.0
    end: bool = False


class JobList(Struct, frozen=True, kw_only=True):
    after: JobId | None = None
    limit: Annotated[int, Meta(ge=1, le=500)] = 100
    site: SiteName | None = None
    state: JobState | None = None


class Hold(Struct, frozen=True, kw_only=True):
    """The offer under which a site speaks of a job."""

    epoch: Epoch
    instance: Instance


class Fetching(Struct, frozen=True, kw_only=True):
    """With ``verify`` the broker looks at each chunk before it sends it, and tells of damage."""

    verify: bool = False


class HeldFetching(Hold, frozen=True, kw_only=True):
    """Both, for a site."""

    verify: bool = False


class Arrival(Struct, frozen=True, kw_only=True):
    """Answer when ``least`` bytes of what is asked for are here, or after ``wait_s``."""

    least: Annotated[int, Meta(ge=0, le=MAX_EARLY_BYTES)] = 0
    wait_s: Seconds = 0.0


class Idle(Struct, frozen=True, kw_only=True):
    idle_s: Seconds = 0.0
