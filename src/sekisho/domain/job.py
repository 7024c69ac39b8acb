"""The life of a job, as the broker sees it.

Rule 1: every change of a job's state is one row of TRANSITIONS, made by `apply`.
Rule 2: after `accepted` no timer moves a job: only what its site or a person says.
Rule 3: what a site says carries the epoch of the offer it speaks of; a stale one changes nothing.
Rule 4: an event told twice is answered the same twice (`already`), so a lost reply can be retried.
Nothing here reads a clock, a disk or a socket; times come in with the event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Final

from sekisho.domain.errors import InvalidTransition, StaleEpoch


class JobState(StrEnum):
    """Where a job is. Terminal states have no row in TRANSITIONS."""

    DRAFT = "draft"  #: kept; its inputs are still arriving
    QUEUED = "queued"  #: ready; no agent has it
    OFFERED = "offered"  #: proposed to one agent instance, until `offer_until`
    ACCEPTED = "accepted"  #: the site has it and will not let go by itself
    RUNNING = "running"  #: the site says that the command runs
    RETURNING = "returning"  #: the command ended; cleared outputs are coming back
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REFUSED = "refused"  #: the site's policy said no
    CANCELLED = "cancelled"  #: never started, or seen dead
    EXPIRED = "expired"  #: nobody took it in time
    LOST = "lost"  #: its fate is unknown, and that is all that can honestly be said

    @property
    def terminal(self) -> bool:
        return self not in TRANSITIONS


class Attention(StrEnum):
    """A flag beside the state: somebody should look."""

    SITE_UNREACHABLE = "site_unreachable"
    UNKNOWN_FATE = "unknown_fate"
    HELD = "held"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a job at ``at``."""

    at: datetime
    #: What a retry of this event finds, when it was applied before.
    reached: ClassVar[frozenset[JobState]] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteEvent(Event):
    """Something that one agent instance says of a job that it was offered under ``epoch``."""

    epoch: int
    instance: str


S = JobState
_AFTER_RUN: Final = frozenset({S.RETURNING, S.SUCCEEDED, S.FAILED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Described(Event):
    """The submitter says what a draft is for, whose inputs were sent while they were still read."""

    request: bytes
    request_digest: str
    expires_at: datetime
    reached = frozenset(S)


@dataclass(frozen=True, slots=True, kw_only=True)
class InputsComplete(Event):
    reached = frozenset({S.QUEUED, S.OFFERED, S.ACCEPTED, S.RUNNING}) | _AFTER_RUN


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered(Event):
    instance: str
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferExpired(Event):
    """No instance accepted in time; the job may be offered again, with a higher epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted(SiteEvent):
    reached = frozenset({S.ACCEPTED, S.RUNNING}) | _AFTER_RUN


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(SiteEvent):
    reached = frozenset({S.RUNNING}) | _AFTER_RUN


@dataclass(frozen=True, slots=True, kw_only=True)
class Published(SiteEvent):
    """A snapshot of the running job was kept. A repeated one counts again; only the last stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended(SiteEvent):
    reached = _AFTER_RUN


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteVerdict(SiteEvent):
    """A site's last word; ``result`` is its opaque envelope, ``tree`` the digest of its outputs."""

    result: bytes
    tree: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned(SiteVerdict):
    """The command ran to its end and what was cleared is stored; ``ok`` tells how it went."""

    ok: bool
    reached = frozenset({S.SUCCEEDED, S.FAILED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused(SiteVerdict):
    reached = frozenset({S.REFUSED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(SiteVerdict):
    """The site could not carry the job out."""

    reached = frozenset({S.FAILED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped(SiteVerdict):
    """The site saw the job dead after a request to cancel."""

    reached = frozenset({S.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredLost(SiteVerdict):
    """The site's reconciliation, or an operator by name, says that the fate is unknown."""

    by: str
    reached = frozenset({S.LOST})


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequested(Event):
    """Asked of a site that holds the job; the site answers with the true outcome."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled(Event):
    """Nobody had started the job; it ends here."""

    reached = frozenset({S.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Expired(Event):
    reached = frozenset({S.EXPIRED})


TRANSITIONS: Final[Mapping[JobState, Mapping[type[Event], JobState]]] = {
    S.DRAFT: {
        Described: S.DRAFT,
        InputsComplete: S.QUEUED,
        Cancelled: S.CANCELLED,
        Expired: S.EXPIRED,
    },
    S.QUEUED: {Offered: S.OFFERED, Cancelled: S.CANCELLED, Expired: S.EXPIRED},
    S.OFFERED: {
        Accepted: S.ACCEPTED,
        OfferExpired: S.QUEUED,
        Refused: S.REFUSED,
        Cancelled: S.CANCELLED,
    },
    S.ACCEPTED: {
        Started: S.RUNNING,
        Refused: S.REFUSED,
        Failed: S.FAILED,
        Stopped: S.CANCELLED,
        DeclaredLost: S.LOST,
        CancelRequested: S.ACCEPTED,
    },
    S.RUNNING: {
        Ended: S.RETURNING,
        Refused: S.REFUSED,
        Failed: S.FAILED,
        Stopped: S.CANCELLED,
        DeclaredLost: S.LOST,
        CancelRequested: S.RUNNING,
        Published: S.RUNNING,
    },
    S.RETURNING: {
        Returned: S.SUCCEEDED,  # or FAILED, when not `ok`
        Refused: S.REFUSED,
        Failed: S.FAILED,
        CancelRequested: S.RETURNING,
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One request to run one command once: what the broker must know, and two opaque envelopes."""

    id: str
    site: str
    submitter: str
    created_at: datetime
    expires_at: datetime  #: when it ends `expired` unless an agent has accepted it
    request: bytes = b""  #: opaque: command, parameters, names; for the site
    #: Of the whole submission: the same id with another one is a conflict. Empty until described.
    request_digest: str = ""
    state: JobState = S.DRAFT
    changed_at: datetime | None = None
    epoch: int = 0  #: fencing number: rises with every offer
    instance: str | None = None  #: the agent instance that was offered, or holds, the job
    offer_until: datetime | None = None
    cancel_requested: bool = False
    attention: Attention | None = None
    result: bytes | None = None  #: opaque: exit code, reason, names; for the submitter
    result_tree: str | None = None
    lost_by: str | None = None
    snapshots: int = 0  #: how often the site has published a snapshot; the last one is kept
    received_at: datetime | None = None
    version: int = 0  #: for compare-and-set in the store

    def resembles(self, other: Job) -> bool:
        """Say whether both may be the same submission: one of them may lack its request yet."""
        whose = (self.site, self.submitter) == (other.site, other.submitter)
        return whose and alike(self.request_digest, other.request_digest)


def alike(digest: str, other: str) -> bool:
    """Say whether both may be of the same request: either may be empty, until it is described."""
    return "" in (digest, other) or digest == other


def apply(job: Job, event: Event) -> Job:
    """Return ``job`` after ``event``; raise StaleEpoch or InvalidTransition and change nothing."""
    check_epoch(job, event)
    target = TRANSITIONS.get(job.state, {}).get(type(event))
    if target is None:
        raise InvalidTransition(job=job.id, state=job.state.value, event=type(event).__name__)
    job = replace(job, state=target, version=job.version + 1, changed_at=event.at)
    match event:
        case SiteVerdict():
            return _close(job, event)
        case Described():
            return _described(job, event)
        case _:
            return _noted(job, event)


def _noted(job: Job, event: Event) -> Job:
    match event:
        case Offered(instance=instance, until=until):
            return replace(job, epoch=job.epoch + 1, instance=instance, offer_until=until)
        case OfferExpired():
            return replace(job, instance=None, offer_until=None)
        case Accepted():
            return replace(job, offer_until=None)
        case CancelRequested():
            return replace(job, cancel_requested=True)
        case Published():
            return replace(job, snapshots=job.snapshots + 1)
        case _:
            return job


def _described(job: Job, event: Described) -> Job:
    """Return a job with its request, which never changes again."""
    if job.request_digest:
        raise InvalidTransition(job=job.id, state=job.state.value, event="Described")
    return replace(
        job,
        request=event.request,
        request_digest=event.request_digest,
        expires_at=event.expires_at,
    )


def _close(job: Job, event: SiteVerdict) -> Job:
    job = replace(job, result=event.result, result_tree=event.tree, attention=None)
    match event:
        case Returned(ok=False):
            return replace(job, state=S.FAILED)
        case DeclaredLost(by=by):
            return replace(job, lost_by=by)
        case _:
            return job


def check_epoch(job: Job, event: Event) -> None:
    """Raise StaleEpoch when a site speaks of an offer that it does not hold."""
    if not isinstance(event, SiteEvent):
        return
    if (event.epoch, event.instance) != (job.epoch, job.instance):
        raise StaleEpoch(job=job.id, epoch=event.epoch)


def already(job: Job, event: Event) -> bool:
    """Say whether ``event`` was applied to ``job`` before: then a retry is answered with success.

    A verdict counts as told before only with the same tree and the same envelope.
    """
    check_epoch(job, event)
    if job.state not in event.reached:
        return False
    if isinstance(event, Described):
        return event.request_digest == job.request_digest
    if isinstance(event, SiteVerdict):
        same = (event.result, event.tree) == (job.result, job.result_tree)
        return same and (not isinstance(event, Returned) or event.ok == (job.state is S.SUCCEEDED))
    return True


def mark_received(job: Job, at: datetime) -> Job:
    """Return a terminal ``job`` whose submitter has its result in hand; the first time counts."""
    if not job.state.terminal:
        raise InvalidTransition(job=job.id, state=job.state.value, event="Received")
    if job.received_at is not None:
        return job
    return replace(job, received_at=at, version=job.version + 1)
