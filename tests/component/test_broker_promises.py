"""P2 and P3 at the broker, over any history of users, agents and time."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sekisho.domain.errors import SekishoError
from sekisho.domain.job import Job, JobState
from sekisho.wire.v1 import Offer
from tests.component.broker_world import AGENT, OTHER_AGENT, World

AGENTS = st.sampled_from([AGENT, OTHER_AGENT])
WORDS = st.sampled_from(["succeeded", "failed", "unable", "refused", "cancelled", "lost"])


class AnyHistory(RuleBasedStateMachine):
    """Kills: an event that leaves a terminal state; a timer that touches an accepted job; an epoch
    that does not rise with every offer; an accept without a look at epoch or instance."""

    @initialize()
    def begin(self) -> None:
        self.world = World()
        self.job = self.world.submit(queue_s=300.0)
        self.offers: list[tuple[Offer, str]] = []
        self.accepted_by: set[tuple[int, str]] = set()
        self.reaper = self.world.desk.reaper

    @rule(agent=AGENTS)
    def poll(self, agent: str) -> None:
        offers = self.world.poll(agent).offers
        self.offers += [(offer, agent) for offer in offers]

    @rule(number=st.integers(0, 5), agent=AGENTS)
    def accept(self, number: int, agent: str) -> None:
        for offer, _ in self.offers[number : number + 1]:
            with suppress(SekishoError):
                self.world.accept(offer, agent)
                self.accepted_by.add((offer.epoch, agent))

    @rule(number=st.integers(0, 5), agent=AGENTS, step=st.sampled_from(["started", "ended"]))
    def report(self, number: int, agent: str, step: str) -> None:
        for offer, _ in self.offers[number : number + 1]:
            with suppress(SekishoError):
                self.world.report(offer, step, instance=agent)

    @rule(number=st.integers(0, 5), agent=AGENTS, word=WORDS)
    def verdict(self, number: int, agent: str, word: str) -> None:
        for offer, _ in self.offers[number : number + 1]:
            with suppress(SekishoError):
                self.world.verdict(offer, word, instance=agent)

    @rule()
    def cancel(self) -> None:
        self.world.desk.submissions.cancel("alice", self.job.id)

    @rule(seconds=st.sampled_from([1, 61, 301, 86_400]))
    def time(self, seconds: int) -> None:
        before = self.world.job(self.job.id)
        self.world.clock.move(timedelta(seconds=seconds))
        self.reaper.expire()
        self.reaper.flag()
        after = self.world.job(self.job.id)
        if before.state in {JobState.ACCEPTED, JobState.RUNNING, JobState.RETURNING}:
            assert (after.state, after.epoch) == (before.state, before.epoch)

    @invariant()
    def at_most_one_has_accepted(self) -> None:
        assert len(self.accepted_by) <= 1

    @invariant()
    def epochs_only_grow(self) -> None:
        epochs = [offer.epoch for offer, _ in self.offers]
        assert epochs == list(range(1, len(epochs) + 1))

    @invariant()
    def an_end_is_never_left(self) -> None:
        before, now = self.job, self.world.job(self.job.id)
        if before.state.terminal:
            assert outcome(now) == outcome(before)
        self.job = now


def outcome(job: Job) -> tuple[object, ...]:
    return job.state, job.result, job.result_tree, job.lost_by, job.epoch


AnyHistory.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestAnyHistory = AnyHistory.TestCase
