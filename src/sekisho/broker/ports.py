"""What the broker needs of the outside world. Synchronous: nothing is awaited in a transaction.

Every method is one transaction, callable from any thread, and durable when it returns. Errors of
the store itself: Unavailable (StorageFull when there is no room; nothing was changed), Corrupt, or
SyncFailed, after which the process must end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from sekisho.broker.holding import Allow, AllowJob, Usage, anything
from sekisho.domain.access import Principal, Role
from sekisho.domain.job import Job, JobState
from sekisho.wire.frames import Chunk, Frame


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
    ids: frozenset[str] | None = None
    cancelling: bool = False  #: only those that are asked to stop, whether or not they have


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
class Sighting:
    """That an agent of a site has polled."""

    site: str
    at: datetime
    agent_version: str
    instance: str


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

    def worthless(self, now: datetime) -> bool:
        """Say whether it opens nothing any more: revoked, or past its end."""
        return self.revoked_at is not None or (
            self.expires_at is not None and self.expires_at <= now
        )


def space_of(*, site: str, submitter: str) -> str:
    """Return the name of the space in which a site and a submitter keep their chunks."""
    return f"{site}/{submitter}"


class JobStore(Protocol):
    """Durable jobs. The request of a job, once it is there, never changes."""

    def add(self, job: Job, allow: AllowJob = anything) -> Job:
        """Keep a new job, or return the kept one: a submission may be repeated.

        What ``allow`` raises is raised and nothing kept; of a new job it hears, with all that were
        added before, at whatever moment.

        Raise Conflict: `job.different_request` when the id is kept with another site, submitter or
        request digest (a draft without one is like any); `job.forgotten` when it was purged (it
        must not run a second time).
        """
        ...

    def get(self, job_id: str, tenant: Tenant) -> Job:
        """Return the job when ``tenant`` may see it, else raise NotFound."""
        ...

    def save(self, job: Job, *, expected_version: int, passed: Sequence[Job] = ()) -> bool:
        """Write ``job`` if its kept version is ``expected_version``; say whether it was.

        A change of state is added to the job's history in the same transaction, after those that
        it ``passed`` on the way.
        """
        ...

    def offer_next(
        self,
        site: str,
        instance: str,
        *,
        now: datetime,
        until: datetime,
        submitter: str | None = None,
    ) -> Job | None:
        """Offer the oldest queued, not expired job of ``site`` to exactly one caller.

        With ``submitter`` only of this user's. The job comes back as `Offered` left it. Cheap when
        there is none.
        """
        ...

    def page(self, which: JobFilter, *, after: str | None, limit: int) -> list[Job]:
        """Return jobs, newest id first, beginning below the id ``after``."""
        ...

    def due(self, now: datetime, *, limit: int) -> list[Job]:
        """Return jobs whose timer has run out, in no order.

        Offers past `offer_until`; drafts and queued jobs past `expires_at`; drafts older than
        DRAFT_TIME.
        """
        ...


class JobLedger(Protocol):
    """What jobs hold and have been through; the other half of the job tables."""

    def declare(self, job_id: str, chunks: Sequence[Chunk], allow: Allow = anything) -> int:
        """Pin ``chunks`` for the job, and return the bytes that it now holds. Idempotent.

        Ask `BlobStore.missing` only afterwards: a pinned chunk that is there stays. Raise NotFound
        without such a job, IntegrityError when a digest was declared with another size, and what
        ``allow`` raises, which hears of everything that was declared before, at whatever moment.
        """
        ...

    def needs(self, job_id: str, digests: Sequence[str]) -> bool:
        """Say whether the job has declared all of ``digests``."""
        ...

    def declared(self, job_id: str, among: Sequence[str] | None = None) -> list[Chunk]:
        """Return the chunks that the job has declared, all or those of ``among``, by digest."""
        ...

    def usage(self, *, site: str | None = None, submitter: str | None = None) -> Usage:
        """Return what the jobs of the site, the submitter, or both, hold together."""
        ...

    def counts(self) -> dict[tuple[str, JobState], int]:
        """Return how many jobs each site has in each state; what is zero is left out."""
        ...

    def history(self, job_id: str) -> list[tuple[datetime, JobState]]:
        """Return the states that the job went through, oldest first; empty without such a job."""
        ...


class Retention(Protocol):
    """Forgetting: what may be dropped, and dropping it so that nothing promised is lost."""

    def purgeable(
        self, *, received_before: datetime, ended_before: datetime, limit: int
    ) -> list[Job]:
        """Return ended jobs received, or else ended, before a time; in no order."""
        ...

    def purge(self, job_id: str) -> None:
        """Forget an ended job with its pins, envelopes and history. Idempotent.

        Only its id stays, so that `add` refuses it. Raise Conflict(`job.not_ended`) for a live one.
        """
        ...

    def unpinned(self, space: str, digests: Sequence[str], delete: BlobStore) -> list[str]:
        """Delete from ``delete`` those of ``digests`` that no job of ``space`` has declared.

        Declarations in the space wait for the time of it. Return what was deleted.
        """
        ...


class Credentials(Protocol):
    """Tokens, and whom they belong to."""

    def principal_for(self, token_hash: str, now: datetime) -> Principal | None:
        """Return whom a valid token belongs to: known, not revoked, not expired.

        A site's token, or an invitation, is valid while the site exists. An invitation that was
        used stays valid to its end, so that a join whose reply was lost can be repeated.
        """
        ...

    def tokens(self, *, role: Role | None = None) -> list[Token]:
        """Return all tokens, or those of a role, oldest first."""
        ...

    def put_token(self, token: Token) -> None:
        """Add or replace the token with this id; Conflict(`token.exists`) for a known hash."""
        ...

    def redeem(self, invitation_id: str, token: Token, now: datetime) -> bool:
        """Use up the invitation: add the site's ``token`` and revoke the site's earlier ones.

        False when it was used before, is not valid, or invites another site. Repeated with the
        same token hash: True.
        """
        ...


class Sites(Protocol):
    """Computing places. What an operator decides and what an agent says never overwrite another."""

    def site(self, site_id: str) -> Site | None: ...

    def sites(self) -> list[Site]:
        """Return all sites by id."""
        ...

    def put_site(self, site: Site) -> None:
        """Add a site, or replace what an operator decides: submitters and what is disabled."""
        ...

    def seen(self, sightings: Sequence[Sighting]) -> None:
        """Note which agents have polled; nothing for an unknown site. Need not be durable."""
        ...


class Directory(Credentials, Sites, Protocol):
    """Sites and credentials, kept together because a site's tokens live no longer than the site."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MintUse:
    """How often the old MInt paths were used for a site, from one ``side``, and when last."""

    site: str
    side: str
    calls: int
    last_at: datetime


class Snapshots(Protocol):
    """What running jobs have published, the last of each; opaque here."""

    def keep(self, job_id: str, snapshot: bytes) -> None:
        """Keep ``snapshot`` in place of the job's earlier one; raise NotFound without such a job.

        It is forgotten with the job.
        """
        ...

    def last(self, job_id: str) -> bytes | None:
        """Return what was kept for the job last."""
        ...


class MintNotes(Protocol):
    """What the old MInt paths must remember beside the jobs. See `broker.mint`."""

    def note(self, job_id: str) -> bytes | None:
        """Return what was kept for the job last; it is forgotten with the job."""
        ...

    def change(self, job_id: str, decide: Callable[[bytes | None], bytes]) -> None:
        """Keep what ``decide`` makes of the job's note, with no other change in between.

        Raise NotFound without such a job. What ``decide`` raises changes nothing.
        """
        ...

    def used(self, site: str, side: str, *, calls: int, at: datetime) -> None:
        """Add to how often a side of a site has used the old paths."""
        ...

    def uses(self) -> list[MintUse]:
        """Return all uses, by site and side."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """The ports behind which one database stands.

    ``at_hand`` says that reading a few rows never waits for a server or for a writer.
    """

    jobs: JobStore
    ledger: JobLedger
    retention: Retention
    directory: Directory
    snapshots: Snapshots
    mint: MintNotes
    at_hand: bool


class BlobStore(Protocol):
    """Bytes by digest, apart for each space (a space is one site with one submitter).

    No one can learn by asking in one space what another holds.
    """

    def missing(self, space: str, digests: Sequence[str]) -> list[str]:
        """Return those of ``digests`` that are not stored, in their order."""
        ...

    def put(self, space: str, frames: Sequence[Frame]) -> None:
        """Store chunks as they came, durably, all of them when it returns. Idempotent.

        Raise IntegrityError, with nothing stored, when one is not what its digest says. After any
        other error some are stored. Many at once cost hardly more than one.
        """
        ...

    def size(self, space: str, digests: Sequence[str]) -> int:
        """Return how long the frames of ``digests`` are together; raise NotFound."""
        ...

    def take(self, space: str, chunk: Chunk) -> Frame:
        """Return the chunk as it was stored, for whoever verifies it; raise NotFound."""
        ...

    def read(self, space: str, digest: str) -> Frame:
        """Return the chunk, verified, as it was stored first or last.

        Raise NotFound, or IntegrityError for damage, which counts as missing from then on.
        """
        ...

    def delete(self, space: str, digests: Sequence[str]) -> None:
        """Forget; what is not there is no error."""
        ...

    def older(self, before: datetime) -> Iterator[tuple[str, str]]:
        """Return (space, digest) of what was stored before a time.

        A listing error raises: an empty answer means that there is nothing.
        """
        ...

    def free_bytes(self) -> int:
        """Return how much room there is for new bytes."""
        ...


class Listener(Protocol):
    """Hears its topics from the moment of its making."""

    async def wait(self, timeout_s: float) -> bool:
        """Return True soon after a notice that was not waited for yet, False after the time."""
        ...


class Wakeups(Protocol):
    """Hints between requests. May wake early, may be lost: never the only truth.

    Listen first, then look, then wait, and look again: a notice between look and wait is heard.

        with wakeups.listen(["site:one"]) as notices:
            while (job := look()) is None and await notices.wait(left()):
                pass
    """

    def notify(self, topic: str) -> None:
        """Wake whoever listens to ``topic``. Callable from any thread."""
        ...

    def listen(self, topics: Sequence[str]) -> AbstractContextManager[Listener]:
        """Begin to hear ``topics``; use it in the event loop that will wait."""
        ...
