"""Looking at every stored byte, and naming what is damaged or gone and who needs it.

It may run beside a broker that serves. What is damaged is set aside by the store as soon as it is
read, so that whoever sends the same bytes again is asked for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal

from sekisho.broker.backup import every_job, lacking
from sekisho.broker.ports import BlobStore, Store, space_of
from sekisho.domain.errors import IntegrityError, NotFound, Unavailable

#: Stored by then is everything: no clock is a day wrong.
_TOMORROW: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Damage:
    """A chunk that is not, or not rightly, where it should be, and the jobs that declared it."""

    what: Literal["damaged", "unreadable", "missing"]
    site: str
    submitter: str
    digest: str
    jobs: tuple[str, ...]


@dataclass(slots=True)
class Scrub:
    """One pass over the store. Holds one chunk at a time; ``chunks`` and ``bytes`` were sound."""

    store: Store
    blobs: BlobStore
    chunks: int = field(default=0, init=False)
    bytes: int = field(default=0, init=False)

    def run(self, now: datetime) -> Iterator[Damage]:
        """Return what is found, as it is found."""
        told = set()
        for damage in self._stored(now):
            told.add((space_of(site=damage.site, submitter=damage.submitter), damage.digest))
            yield damage
        for job in every_job(self.store):
            space = space_of(site=job.site, submitter=job.submitter)
            for digest in lacking(self.store, self.blobs, job):
                if (space, digest) not in told:
                    told.add((space, digest))
                    yield self._damage("missing", space, digest)

    def _stored(self, now: datetime) -> Iterator[Damage]:
        for space, digest in self.blobs.older(now + _TOMORROW):
            try:
                self.bytes += len(self.blobs.read(space, digest).payload)
                self.chunks += 1
            except NotFound:
                continue  # collected meanwhile
            except IntegrityError:
                yield self._damage("damaged", space, digest)
            except Unavailable:
                yield self._damage("unreadable", space, digest)

    def _damage(
        self, what: Literal["damaged", "unreadable", "missing"], space: str, digest: str
    ) -> Damage:
        site, _, submitter = space.partition("/")
        jobs = tuple(
            job.id
            for job in every_job(self.store, site=site, submitter=submitter)
            if self.store.ledger.needs(job.id, [digest])
        )
        return Damage(what, site, submitter, digest, jobs)
