"""What the broker needs of the outside world. Synchronous: nothing is awaited in a transaction.

Every method is one transaction and durable when it returns. Errors of the store itself are
Unavailable (try again) or Corrupt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from sekisho.domain.access import Principal, Role
from sekisho.domain.job import Job, JobState
from sekisho.wire.frames import Chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """Whose jobs a look-up may see. Both None: the operator's own, all of them."""

    submitter: str | None = None
    site: str | None = None


EVERYONE = Tenant()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs a page lists; None: any."""

    site: str | None = None
    submitter: str | None = None
    states: frozenset[JobState] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a site or a submitter holds of the broker: jobs not yet ended, bytes kept."""

    live_jobs: int
    stored_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A computing place as the broker knows it."""

    id: str
    submitters: frozenset[str]
    created_at: datetime
    disabled: bool = False
    disabled_commands: frozenset[str] = frozenset()
    last_seen_at: datetime | None = None
    agent_version: str | None = None
    instance: str | None = None  #: of the agent that polled last


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A credential without its secret. ``hash`` is the SHA-256 of the token, in hexadecimal."""

    id: str
    hash: str = field(repr=False)
    role: Role
    name: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    note: str = ""


class JobStore(Protocol):
    """Durable jobs, and which chunks each of them needs."""

    def add(self, job: Job) -> Job:
        """Keep a new job. The same id with the same request digest (and owner) returns the kept
        one; another digest or owner raises Conflict(`job.different_request`)."""
        ...

    def get(self, job_id: str, tenant: Tenant) -> Job:
        """Return the job when ``tenant`` may see it, else raise NotFound."""
        ...

    def save(self, job: Job, *, expected_version: int) -> bool:
        """Write ``job`` if its kept version is ``expected_version``; say whether it was. The
        change of state is added to the job's history in the same transaction."""
        ...

    def offer_next(self, site: str, instance: str, *, now: datetime, until: datetime) -> Job | None:
        """Offer the oldest queued, not expired job of ``site`` to exactly one caller."""
        ...

    def page(self, which: JobFilter, *, after: str | None, limit: int) -> list[Job]:
        """Return jobs, newest first, beginning below the id ``after``."""
        ...

    def due(self, now: datetime, *, limit: int) -> list[Job]:
        """Return jobs whose timer has run out: offers not accepted, drafts and queued too old."""
        ...


class JobLedger(Protocol):
    """What jobs hold and have been through; the other half of the job tables."""

    def declare(self, job_id: str, chunks: Sequence[Chunk]) -> int:
        """Record that the job needs ``chunks``: from now on they are pinned. Idempotent. Return
        the bytes that the job now holds."""
        ...

    def needs(self, job_id: str, digests: Sequence[str]) -> bool:
        """Say whether the job has declared all of ``digests``."""
        ...

    def declared(self, job_id: str) -> list[Chunk]:
        """Return every chunk that the job needs."""
        ...

    def usage(self, *, site: str | None = None, submitter: str | None = None) -> Usage:
        """Return what the site's, or the submitter's, jobs hold together."""
        ...

    def counts(self) -> dict[tuple[str, JobState], int]:
        """Return how many jobs each site has in each state."""
        ...

    def history(self, job_id: str) -> list[tuple[datetime, JobState]]:
        """Return the states that the job went through, oldest first."""
        ...


class Retention(Protocol):
    """Forgetting: what may be dropped, and dropping it so that nothing promised is lost."""

    def purgeable(self, now: datetime, *, limit: int) -> list[Job]:
        """Return ended jobs past the retention times that `purge` would accept."""
        ...

    def purge(self, job_id: str) -> None:
        """Drop the job's pins, envelopes and history; the job itself is forgotten."""
        ...

    def unpinned(self, space: str, digests: Sequence[str], delete: BlobStore) -> list[str]:
        """Delete from ``delete`` those of ``digests`` in ``space`` that no job needs, with
        declarations locked out for the time of it; return what was deleted."""
        ...


class Directory(Protocol):
    """Sites and credentials."""

    def principal_for(self, token_hash: str, now: datetime) -> Principal | None:
        """Return whom a valid, not revoked, not expired token belongs to (for a site or an
        invitation: only while the site exists)."""
        ...

    def tokens(self, *, role: Role | None = None) -> list[Token]: ...

    def put_token(self, token: Token) -> None:
        """Add or replace the token with this id."""
        ...

    def redeem(self, invitation_id: str, token: Token, now: datetime) -> bool:
        """Use up the invitation and add the site's ``token``, revoking the site's earlier ones;
        False when it was used before. Repeated with the same token hash: True."""
        ...

    def sites(self) -> list[Site]: ...

    def put_site(self, site: Site) -> None:
        """Add or replace the site with this id."""
        ...


class BlobStore(Protocol):
    """Bytes by digest, apart for each space (a space is one site with one submitter).

    No one can learn by asking in one space what another holds.
    """

    def missing(self, space: str, digests: Sequence[str]) -> list[str]:
        """Return those of ``digests`` that are not stored, in their order."""
        ...

    def put(self, space: str, digest: str, data: bytes) -> None:
        """Store verified bytes durably. Idempotent. Raise StorageFull or IntegrityError."""
        ...

    def read(self, space: str, digest: str) -> bytes:
        """Return the bytes, verified; raise NotFound, or IntegrityError for damage."""
        ...

    def delete(self, space: str, digests: Sequence[str]) -> None:
        """Forget; what is not there is no error."""
        ...

    def older(self, before: datetime) -> Iterator[tuple[str, str]]:
        """Return (space, digest) of what was stored before a time. A listing error raises: an
        empty answer means that there is nothing."""
        ...

    def free_bytes(self) -> int: ...


class Wakeups(Protocol):
    """Hints between requests. May wake early, may be lost: never the only truth."""

    def notify(self, topic: str) -> None:
        """Wake whoever waits for ``topic``. Callable from any thread."""
        ...

    async def wait(self, topics: Sequence[str], timeout_s: float) -> None:
        """Return when one of ``topics`` was notified, or after the time."""
        ...
