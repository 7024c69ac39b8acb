"""A consistent copy of everything that the broker keeps, made while it works, and verified.

The database first, then the chunks: a chunk that is stored later belongs to a job that the copied
database does not know, and does no harm. Every chunk is verified when it is read for the copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sekisho.broker.ports import EVERYONE, BlobStore, JobFilter, Store, space_of
from sekisho.domain.errors import Corrupt, NotFound
from sekisho.domain.job import Job, JobState

_PAGE: Final = 200
_TOMORROW: Final = timedelta(days=1)
#: Jobs whose declared chunks must all be there; in the others some may still be on their way.
_COMPLETE: Final = frozenset({JobState.QUEUED, JobState.OFFERED, JobState.SUCCEEDED})


@dataclass(frozen=True, slots=True)
class Copied:
    """What a backup holds."""

    jobs: int
    chunks: int
    chunk_bytes: int


def copy_chunks(source: BlobStore, target: BlobStore, now: datetime) -> tuple[int, int]:
    """Copy all chunks, verified; return how many, and their bytes. Collected ones are no loss."""
    number = size = 0
    for space, digest in source.older(now + _TOMORROW):
        try:
            frame = source.read(space, digest)
        except NotFound:
            continue
        target.put(space, [frame])
        number, size = number + 1, size + len(frame.payload)
    return number, size


def verify(store: Store, blobs: BlobStore) -> int:
    """Return the number of jobs in the copy; raise Corrupt when one lacks a chunk of its own."""
    number = 0
    for job in every_job(store):
        number += 1
        whole = store.jobs.get(job.id, EVERYONE)
        if lacking(store, blobs, whole):
            raise Corrupt("backup.chunk_missing", job=job.id)
    return number


def lacking(store: Store, blobs: BlobStore, job: Job) -> list[str]:
    """Return the digests of chunks that must be there for ``job`` and are not."""
    if job.state not in _COMPLETE:
        return []
    digests = [chunk.digest for chunk in store.ledger.declared(job.id)]
    return blobs.missing(space_of(site=job.site, submitter=job.submitter), digests)


def every_job(
    store: Store, *, site: str | None = None, submitter: str | None = None
) -> Iterator[Job]:
    """Return all jobs, of the site and the submitter if they are named, a page at a time."""
    after, which = None, JobFilter(site=site, submitter=submitter)
    while page := store.jobs.page(which, after=after, limit=_PAGE):
        yield from page
        after = page[-1].id
