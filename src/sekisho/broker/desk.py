"""All services of the broker over one set of ports: what HTTP and the operator's CLI act on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO

from sekisho.broker.arriving import Arriving
from sekisho.broker.chunks import Chunks
from sekisho.broker.heard import Heard
from sekisho.broker.jobs import Jobs
from sekisho.broker.meter import Meter
from sekisho.broker.mint import MintDesk, MintOrders
from sekisho.broker.mint_agent import MintWork
from sekisho.broker.offer import Offers
from sekisho.broker.outstanding import Outstanding
from sekisho.broker.policy import CurrentPolicy
from sekisho.broker.ports import BlobStore, Store, Wakeups
from sekisho.broker.publish import Publications
from sekisho.broker.reaper import Reaper
from sekisho.broker.sites import SiteOffice
from sekisho.broker.submit import Submissions
from sekisho.broker.tokens import TokenOffice
from sekisho.domain.clock import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The outside world that the services work on."""

    store: Store
    blobs: BlobStore
    wakeups: Wakeups
    clock: Clock


@dataclass(frozen=True, slots=True)
class Desk:
    """The services, made of the ports. Cheap to make; all of its state is in its fields."""

    ports: Ports
    policy: CurrentPolicy = field(default_factory=CurrentPolicy)
    meter: Meter = field(default_factory=Meter)
    outstanding: Outstanding = field(default_factory=Outstanding)
    arriving: Arriving = field(default_factory=Arriving)
    heard: Heard = field(default_factory=Heard)
    spool: Callable[[], IO[bytes]] = tempfile.TemporaryFile  #: for bodies that hold whole files

    @property
    def jobs(self) -> Jobs:
        return Jobs(self.ports.store.jobs, self.ports.wakeups, self.meter)

    @property
    def submissions(self) -> Submissions:
        p, store = self.ports, self.ports.store
        return Submissions(self.jobs, store.ledger, p.blobs, store.directory, self.policy, p.clock)

    @property
    def offers(self) -> Offers:
        p, store = self.ports, self.ports.store
        return Offers(
            self.jobs,
            store.ledger,
            p.blobs,
            store.directory,
            p.clock,
            self.outstanding,
            self.arriving,
            self.heard,
        )

    @property
    def chunks(self) -> Chunks:
        p, store = self.ports, self.ports.store
        jobs, ledger = self.jobs, store.ledger
        return Chunks(jobs, ledger, p.blobs, self.policy, p.clock, self.arriving)

    @property
    def publications(self) -> Publications:
        return Publications(self.jobs, self.ports.store.snapshots, self.ports.clock)

    @property
    def sites(self) -> SiteOffice:
        return SiteOffice(self.ports.store.directory, self.jobs, self.ports.clock, self.policy)

    @property
    def tokens(self) -> TokenOffice:
        directory = self.ports.store.directory
        return TokenOffice(directory, directory, self.ports.clock)

    @property
    def mint(self) -> MintDesk:
        """The old MInt protocol."""
        p, store = self.ports, self.ports.store
        return MintDesk(
            jobs=self.jobs,
            submissions=self.submissions,
            chunks=self.chunks,
            notes=store.mint,
            sites=store.directory,
            policy=self.policy,
            clock=p.clock,
        )

    @property
    def mint_orders(self) -> MintOrders:
        return MintOrders(self.mint)

    @property
    def mint_work(self) -> MintWork:
        return MintWork(self.mint)

    @property
    def reaper(self) -> Reaper:
        """A new reaper; keep it: it remembers what its last pass saw."""
        p, store = self.ports, self.ports.store
        return Reaper(
            self.jobs,
            store.retention,
            p.blobs,
            store.directory,
            self.policy,
            p.clock,
            lambda: self.mint_work.orphaned(store.directory.tokens()),
            self.heard,
        )
