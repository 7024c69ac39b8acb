"""A broker over memory adapters with a clock that tests move by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sekisho.adapters.blobs_memory import MemoryBlobs
from sekisho.adapters.store_memory import memory_store
from sekisho.adapters.wakeups_memory import MemoryWakeups
from sekisho.broker.chunks import Claim
from sekisho.broker.desk import Desk, Ports
from sekisho.broker.policy import CurrentPolicy, Policy
from sekisho.broker.ports import EVERYONE, Store, Tenant
from sekisho.domain.access import Role
from sekisho.domain.ids import make_id
from sekisho.domain.job import Job
from sekisho.domain.token import hash_token, make_token
from sekisho.wire.frames import Chunk, Frame
from sekisho.wire.v1 import Accept, JoinSite, Offer, Poll, PollAnswer, Report, SubmitJob, Verdict
from tests.world import NOW, a_chunk, an_id

AGENT: Final = make_id("ins", at_ms=1, entropy=b"0123456789")
OTHER_AGENT: Final = make_id("ins", at_ms=2, entropy=b"0123456789")


@dataclass(slots=True)
class HandClock:
    """A clock that stands still until it is moved."""

    at: datetime = NOW
    passed: float = 0.0

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.passed

    def move(self, step: timedelta) -> None:
        self.at += step
        self.passed += step.total_seconds()


@dataclass(slots=True)
class World:
    """A broker with the sites `one`, for `alice` and `bob`, and `two`, for `bob`."""

    clock: HandClock = field(default_factory=HandClock)
    policy: CurrentPolicy = field(default_factory=lambda: CurrentPolicy(Policy(free_floor_bytes=0)))
    store: Store = field(default_factory=memory_store)
    blobs: MemoryBlobs = field(default_factory=MemoryBlobs)
    desk: Desk = field(init=False)

    def __post_init__(self) -> None:
        ports = Ports(store=self.store, blobs=self.blobs, wakeups=MemoryWakeups(), clock=self.clock)
        self.desk = Desk(ports, self.policy)
        self.desk.sites.add("one", frozenset({"alice", "bob"}))
        self.desk.sites.add("two", frozenset({"bob"}))

    # what a submitter does

    def submit(self, user: str = "alice", **changes: Any) -> Job:
        return self.desk.submissions.submit(user, a_submission(**changes))[0]

    def draft(self, *texts: str) -> Job:
        """Return a draft that has declared and stored the chunks of ``texts``."""
        job = self.submit(has_inputs=True)
        self.put(Claim(tenant=Tenant(submitter="alice")), job, texts)
        return job

    def put(self, claim: Claim, job: Job, texts: Sequence[str]) -> list[Chunk]:
        chunks = [a_chunk(text) for text in texts]
        self.desk.chunks.missing(claim, job.id, [chunk for chunk, _ in chunks])
        frames = [Frame(chunk.digest, data) for chunk, data in chunks]
        self.desk.chunks.store(self.desk.chunks.open(claim, job.id), frames)
        return [chunk for chunk, _ in chunks]

    # what a site does

    def poll(self, instance: str = AGENT, *, free: int = 1, **changes: Any) -> PollAnswer:
        message = Poll(instance=instance, free=free, **changes)
        return self.desk.offers.look("one", message)

    def offer(self, instance: str = AGENT) -> Offer:
        (offer,) = self.poll(instance).offers
        return offer

    def accept(self, offer: Offer, instance: str = AGENT) -> Job:
        message = Accept(epoch=offer.epoch, instance=instance)
        return self.desk.offers.accept("one", offer.job, message)

    def report(self, offer: Offer, *steps: Any, instance: str = AGENT) -> Job:
        message = Report(epoch=offer.epoch, instance=instance, steps=list(steps))
        return self.desk.offers.report("one", offer.job, message)

    def verdict(self, offer: Offer, verdict: Any = "succeeded", **changes: Any) -> Job:
        usual: dict[str, Any] = {"epoch": offer.epoch, "instance": AGENT, "result": b"an outcome"}
        message = Verdict(verdict=verdict, **(usual | changes))
        return self.desk.offers.verdict("one", offer.job, message)

    def held(self) -> Offer:
        """Return a job of alice's that the agent has accepted."""
        self.submit()
        offer = self.offer()
        self.accept(offer)
        return offer

    def ended(self) -> Offer:
        offer = self.held()
        self.report(offer, "started", "ended")
        return offer

    def claim(self, offer: Offer) -> Claim:
        return Claim(tenant=Tenant(site="one"), epoch=offer.epoch, instance=AGENT)

    # looking

    def job(self, job_id: str) -> Job:
        return self.store.jobs.get(job_id, EVERYONE)

    def token(self, role: Role, name: str) -> str:
        """Return the secret of a new token."""
        if role is Role.INVITATION:
            return self.desk.tokens.invite(name)[1].reveal()
        if role is Role.SITE:
            return self._joined(name)
        return self.desk.tokens.create(role, name)[1].reveal()

    def _joined(self, name: str) -> str:
        secret = make_token(Role.SITE, name.encode().ljust(32, b"-")).reveal()
        invitation = self.token(Role.INVITATION, name)
        principal = self.desk.tokens.authenticate(invitation)
        self.desk.tokens.join(principal, JoinSite(instance=AGENT, token_hash=hash_token(secret)))
        return secret


def a_submission(**changes: Any) -> SubmitJob:
    usual = {"id": an_id("job"), "site": "one", "request": b"a request"}
    return SubmitJob(**(usual | changes))
