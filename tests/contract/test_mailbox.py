"""What every mailbox must do. A new one subclasses `MailboxContract` and gives its fixtures."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvicorn

from sekisho.adapters.blobs_memory import MemoryBlobs
from sekisho.adapters.clock_system import SystemClock
from sekisho.adapters.http_client import Address
from sekisho.adapters.mailbox_https import HttpsMailbox
from sekisho.adapters.mailbox_memory import BrokerChunks, MemoryMailbox
from sekisho.adapters.store_memory import memory_store
from sekisho.adapters.wakeups_memory import MemoryWakeups
from sekisho.broker.chunks import Claim
from sekisho.broker.desk import Desk, Ports
from sekisho.broker.ports import EVERYONE, Tenant
from sekisho.domain.access import Role
from sekisho.domain.egress import Cleared, clear
from sekisho.domain.errors import (
    Conflict,
    IntegrityError,
    InvalidTransition,
    NotFound,
    StaleEpoch,
)
from sekisho.domain.ids import make_id
from sekisho.domain.token import hash_token, make_token
from sekisho.http.app import Face, application
from sekisho.http.longpoll import LongPoll
from sekisho.site.mailbox import Hold, LastWord, Mailbox, Step
from sekisho.site.workplace import Staged
from sekisho.transfer.send import send_tree
from sekisho.transfer.tree import Tree
from sekisho.wire.envelope import TreeRef
from sekisho.wire.v1 import Offer, SubmitJob
from tests.site_world import a_tree
from tests.world import a_site, a_token, an_id

OURS = make_id("ins", at_ms=1, entropy=b"0123456789")
OTHERS = make_id("ins", at_ms=2, entropy=b"0123456789")
STARTED: Cleared[tuple[Step, ...]] = clear(("started",))
FILES = {"a.dat": b"1" * 700_000, "in/b.dat": b"2", "名前.txt": b"3" * 70_000}


@dataclass
class Broker:
    """A broker in memory, and what its users do."""

    clock: SystemClock = field(default_factory=SystemClock)
    desk: Desk = field(init=False)

    def __post_init__(self) -> None:
        store, blobs = memory_store(), MemoryBlobs(capacity=1 << 40)
        store.directory.put_site(a_site("one"))
        ports = Ports(store=store, blobs=blobs, wakeups=MemoryWakeups(), clock=self.clock)
        self.desk = Desk(ports)

    def submit(self, files: dict[str, bytes] | None = None) -> tuple[str, TreeRef]:
        """Submit a job of alice's; return its id and what names its inputs."""
        job = an_id("job")
        message = SubmitJob(id=job, site="one", request=b"{}", has_inputs=bool(files))
        self.desk.submissions.submit("alice", message)
        tree, contents = a_tree(files or {})
        if files:
            port = BrokerChunks(self.desk, Claim(tenant=Tenant(submitter="alice")), job)
            send_tree(tree, contents.__getitem__, port)
            self.desk.submissions.start("alice", job)
        return job, tree.ref()

    def state(self, job: str) -> str:
        return self.desk.ports.store.jobs.get(job, EVERYONE).state.value


def outputs(files: dict[str, bytes]) -> Any:
    tree, contents = a_tree(files)
    return clear(Staged(tree=tree, read=contents.__getitem__))


def a_word(tree: Tree | None = None, **changes: Any) -> LastWord:
    word = LastWord(
        verdict="succeeded",
        result=b"\x00\xff an outcome",
        tree=tree.digest if tree else None,
        steps=("started", "ended"),
    )
    return replace(word, **changes)


async def offered(mailbox: Mailbox) -> Offer:
    answer = await mailbox.poll(free=1, holds=[], cancelling=[], wait_s=0)
    (offer,) = answer.offers
    return offer


async def held(mailbox: Mailbox) -> Hold:
    offer = await offered(mailbox)
    hold = Hold(offer.job, offer.epoch)
    await mailbox.accept(hold)
    return hold


@pytest.mark.anyio
class MailboxContract:
    """Wants fixtures ``broker``, ``mailbox`` and, for another agent of the site, ``other``."""

    async def test_as_many_jobs_are_offered_as_there_is_room_for(
        self, broker: Broker, mailbox: Mailbox
    ) -> None:
        jobs = [broker.submit()[0] for _ in range(3)]
        none = await mailbox.poll(free=0, holds=[], cancelling=[], wait_s=0)
        two = await mailbox.poll(free=2, holds=[], cancelling=[], wait_s=0)
        assert none.offers == []
        assert [offer.job for offer in two.offers] == jobs[:2]
        assert [(o.epoch, o.submitter, o.request) for o in two.offers] == [(1, "alice", b"{}")] * 2

    async def test_a_poll_hears_of_a_job_that_comes_while_it_waits(
        self, broker: Broker, mailbox: Mailbox
    ) -> None:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: anyio.to_thread.run_sync(broker.submit))
                answer = await mailbox.poll(free=1, holds=[], cancelling=[], wait_s=25)
        assert len(answer.offers) == 1

    async def test_a_poll_without_news_ends_empty(self, mailbox: Mailbox) -> None:
        with anyio.fail_after(20):
            answer = await mailbox.poll(free=1, holds=[], cancelling=[], wait_s=0.05)
        assert (answer.offers, answer.cancel) == ([], [])

    async def test_a_poll_may_be_broken_off(self, broker: Broker, mailbox: Mailbox) -> None:
        with anyio.move_on_after(0.05) as scope:
            await mailbox.poll(free=0, holds=[], cancelling=[], wait_s=25)
        assert scope.cancelled_caught
        broker.submit()
        assert (await offered(mailbox)).epoch == 1

    async def test_a_cancel_is_heard_until_it_was_heard(
        self, broker: Broker, mailbox: Mailbox
    ) -> None:
        broker.submit()
        hold = await held(mailbox)
        broker.desk.submissions.cancel("alice", hold.job)
        for _ in range(2):
            answer = await mailbox.poll(free=0, holds=[hold.job], cancelling=[], wait_s=0)
            assert answer.cancel == [hold.job]
        heard = [hold.job]
        answer = await mailbox.poll(free=0, holds=heard, cancelling=heard, wait_s=0)
        assert answer.cancel == []

    async def test_what_is_switched_off_is_told(self, broker: Broker, mailbox: Mailbox) -> None:
        broker.desk.sites.switch("one", disabled=True, command="solve")
        answer = await mailbox.poll(free=0, holds=[], cancelling=[], wait_s=0)
        assert answer.disabled_commands == ["solve"]

    async def test_an_accept_may_be_repeated(self, broker: Broker, mailbox: Mailbox) -> None:
        job, _ = broker.submit()
        hold = await held(mailbox)
        await mailbox.accept(hold)
        assert broker.state(job) == "accepted"

    async def test_nobody_else_speaks_for_a_job(
        self, broker: Broker, mailbox: Mailbox, other: Mailbox, tmp_path: Path
    ) -> None:
        job, ref = broker.submit(FILES)
        hold = await held(mailbox)
        tree = await mailbox.list_inputs(hold, ref)
        for said in (
            other.accept(hold),
            other.list_inputs(hold, ref),
            other.fetch(hold, tree, str(tmp_path / "work"), lasting=True),
            other.send(hold, outputs({"x": b"1"})),
            other.tell(hold, STARTED),
            other.tell(hold, clear(a_word())),
            mailbox.accept(replace(hold, epoch=2)),
            mailbox.tell(replace(hold, epoch=2), clear(a_word())),
        ):
            with pytest.raises(StaleEpoch):
                await said
        assert broker.state(job) == "accepted"

    async def test_an_unknown_job_is_not_found(self, mailbox: Mailbox) -> None:
        hold = Hold(an_id("job"), 1)
        for said in (mailbox.accept(hold), mailbox.tell(hold, clear(a_word()))):
            with pytest.raises(NotFound) as told:
                await said
            assert told.value.code == "job.not_found"

    async def test_inputs_arrive_whole_and_again(
        self, broker: Broker, mailbox: Mailbox, tmp_path: Path
    ) -> None:
        _, ref = broker.submit(FILES)
        hold, work = await held(mailbox), tmp_path / "work"
        work.mkdir(0o700)
        for _ in range(2):
            tree = await mailbox.list_inputs(hold, ref)
            await mailbox.fetch(hold, tree, str(work), lasting=True)
        files = [f for f in work.rglob("*") if f.is_file()]
        assert {str(f.relative_to(work)): f.read_bytes() for f in files} == FILES

    async def test_another_list_than_the_named_one_is_not_taken(
        self, broker: Broker, mailbox: Mailbox
    ) -> None:
        _, ref = broker.submit(FILES)
        hold = await held(mailbox)
        wrong = TreeRef(digest="0" * 64, files=ref.files, size=ref.size, index=ref.index)
        with pytest.raises(IntegrityError):
            await mailbox.list_inputs(hold, wrong)

    async def test_steps_and_verdict_are_told_and_may_be_repeated(
        self, broker: Broker, mailbox: Mailbox
    ) -> None:
        job, _ = broker.submit()
        hold, staged = await held(mailbox), outputs(FILES)
        word = clear(a_word(staged.value.tree))
        for _ in range(2):
            await mailbox.tell(hold, STARTED)
            assert broker.state(job) == "running"
        for _ in range(2):
            await mailbox.send(hold, staged)
        for _ in range(3):
            await mailbox.tell(hold, word)
        kept = broker.desk.ports.store.jobs.get(job, EVERYONE)
        assert (kept.state.value, kept.result) == ("succeeded", word.value.result)
        assert kept.result_tree == staged.value.tree.digest

    @pytest.mark.parametrize(
        ("verdict", "state"),
        [
            ("failed", "failed"),
            ("unable", "failed"),
            ("refused", "refused"),
            ("cancelled", "cancelled"),
            ("lost", "lost"),
        ],
    )
    async def test_every_verdict_has_its_state(
        self, broker: Broker, mailbox: Mailbox, verdict: Any, state: str
    ) -> None:
        job, _ = broker.submit()
        steps = ("started", "ended") if verdict == "failed" else ()
        hold = await held(mailbox)
        await mailbox.tell(hold, clear(a_word(verdict=verdict, steps=steps)))
        assert broker.state(job) == state

    async def test_a_second_verdict_that_differs_is_not_taken(
        self, broker: Broker, mailbox: Mailbox
    ) -> None:
        job, _ = broker.submit()
        hold = await held(mailbox)
        await mailbox.tell(hold, clear(a_word()))
        for other in (a_word(verdict="failed"), a_word(result=b"another")):
            with pytest.raises(InvalidTransition):
                await mailbox.tell(hold, clear(other))
        assert broker.state(job) == "succeeded"

    async def test_a_verdict_waits_for_what_was_to_be_sent(
        self, broker: Broker, mailbox: Mailbox
    ) -> None:
        job, _ = broker.submit()
        hold, staged = await held(mailbox), outputs(FILES)
        await mailbox.send(hold, staged)
        blobs = broker.desk.ports.blobs
        lost = staged.value.tree.chunks()[0].digest
        blobs.delete("one/alice", [lost])
        word = clear(a_word(staged.value.tree))
        with pytest.raises(Conflict) as told:
            await mailbox.tell(hold, word)
        assert told.value.code == "job.outputs_missing"
        await mailbox.send(hold, staged)
        await mailbox.tell(hold, word)
        assert broker.state(job) == "succeeded"


class TestMemoryMailbox(MailboxContract):
    @pytest.fixture
    def broker(self) -> Broker:
        return Broker()

    @pytest.fixture
    def mailbox(self, broker: Broker) -> Mailbox:
        return MemoryMailbox(broker.desk, "one", OURS)

    @pytest.fixture
    def other(self, broker: Broker) -> Mailbox:
        return MemoryMailbox(broker.desk, "one", OTHERS)


@contextmanager
def served(desk: Desk) -> Iterator[int]:
    """Serve ``desk`` from a thread; give the port."""
    polls = LongPoll(desk.ports.wakeups, desk.ports.clock)
    face = Face(reload=lambda: None, fatal=lambda _: None, checks={})
    app = application(desk, polls, face, None)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            polls.drain()
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


class TestHttpsMailbox(MailboxContract):
    """Against the broker's own application on a socket of this machine."""

    @pytest.fixture
    def broker(self) -> Broker:
        return Broker()

    @pytest.fixture
    def address(self, broker: Broker) -> Iterator[Address]:
        token = make_token(Role.SITE, bytes(range(32)))
        known = a_token(Role.SITE, "one", hash=hash_token(token.reveal()))
        broker.desk.ports.store.directory.put_token(known)
        with served(broker.desk) as port:
            yield Address(url=f"http://127.0.0.1:{port}", token=token)

    @pytest.fixture
    async def mailbox(self, address: Address) -> AsyncIterator[Mailbox]:
        async with HttpsMailbox(address, OURS) as mailbox:
            yield mailbox

    @pytest.fixture
    async def other(self, address: Address) -> AsyncIterator[Mailbox]:
        async with HttpsMailbox(address, OTHERS) as mailbox:
            yield mailbox
