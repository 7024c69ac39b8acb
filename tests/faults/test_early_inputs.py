"""Inputs reach the site while their sender still sends; whatever breaks, nothing is lost or left.

The sender is this test: it holds back the last chunk until the agent has what came before. So the
order is counted, not timed. Kills: an agent that waits for the offer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from sekisho.adapters.chunks_https import HttpsChunks
from sekisho.adapters.http_client import Address, sender
from sekisho.adapters.http_line import HttpLine
from sekisho.adapters.http_sender import Call
from sekisho.adapters.lane_https import HttpsLane
from sekisho.adapters.patience import Patience
from sekisho.adapters.token_file import read_token
from sekisho.client.client import new_job_id
from sekisho.domain.limits import EARLY_BYTES, MIB
from sekisho.transfer.source import LocalTree, scan
from sekisho.wire.envelope import Request, seal
from sekisho.wire.frames import Chunk
from sekisho.wire.v1 import JobView, SubmitJob
from tests.faults.program import SECONDS
from tests.faults.trio import SITE, WHOLE_LIFE, Trio
from tests.proxy import HOST

SIZE = EARLY_BYTES + 8 * MIB
#: What may still be on its way when the sender pauses: a step, and its neighbours.
ALMOST = SIZE - 8 * MIB
LONG_S = 3 * SECONDS


@dataclass
class Sender:
    """A user who sends one file to one job, as far as the test says."""

    line: HttpLine
    local: LocalTree
    job: str

    @property
    def lane(self) -> HttpsLane:
        return HttpsLane(self.line)

    @property
    def chunks(self) -> HttpsChunks:
        return self.lane.chunks(self.job)

    @property
    def list(self) -> dict[Chunk, bytes]:
        return dict(self.local.tree.index())

    def submit(self, key: str = "a", **changes: object) -> None:
        spec = {"command": "work", "parameters": {"key": key}, "outputs": ["out/**"]}
        request = Request(**(spec | {"inputs": self.local.tree.ref()} | changes))  # type: ignore[arg-type]
        self.lane.submit(SubmitJob(id=self.job, site=SITE, request=seal(request), has_inputs=True))

    def declare(self) -> None:
        self.chunks.missing([*self.list, *self.local.tree.chunks()])

    def send(self, start: int = 0, end: int | None = None) -> None:
        """Send the list, and those chunks of the file."""
        chosen = self.local.tree.chunks()[start:end]
        self.chunks.send([*self.list.items(), *((c, self.local.content(c)) for c in chosen)])

    def start(self) -> None:
        self.lane.start(self.job)

    def state(self) -> str:
        return self.view().state

    def view(self) -> JobView:
        return self.lane.view(self.job)


@contextmanager
def a_sender(trio: Trio, size: int = SIZE) -> Iterator[Sender]:
    source = trio.some_input(size)
    token = read_token(trio.home / "token", foreign=True)
    where = Address(url=f"http://{HOST}:{trio.proxy.port}", token=token)
    line = HttpLine(sender(where), Patience(limit_s=SECONDS))
    try:
        yield Sender(line, LocalTree(scan([("in/given", source)])), new_job_id())
    finally:
        line.close()


@pytest.fixture
def user(trio: Trio) -> Iterator[Sender]:
    with a_sender(trio) as made:
        yield made


def early(trio: Trio) -> Path:
    return trio.site / "work" / ".early"


def fetched(trio: Trio, job: str) -> int:
    """Return how many bytes of the job's inputs are on the site's disk before it is the site's."""
    with suppress(FileNotFoundError):
        return sum(f.stat().st_blocks * 512 for f in (early(trio) / job).glob("*/*"))
    return 0


def left(trio: Trio) -> list[Path]:
    """Return what lies there that is not a job's that the site has."""
    return [*early(trio).glob("*")] if early(trio).exists() else []


def passed_out(trio: Trio, user: Sender) -> int:
    """Return how many bytes of chunks the broker has given out, by its own count."""
    token = read_token(trio.home / "admin", foreign=True)
    where = Address(url=f"http://{HOST}:{trio.proxy.port}", token=token)
    line = HttpLine(sender(where), user.line.patience)
    try:
        text = line.send(Call(method="GET", path="metrics")).decode()
    finally:
        line.close()
    found = re.search(r'(?m)^sekisho_chunk_bytes\S*direction="out"\S* (\S+)', text)
    return int(float(found[1])) if found else 0


def begun(trio: Trio, user: Sender) -> None:
    """Send all but the end; return when nearly all of it is at the site."""
    user.submit()
    user.declare()
    user.send(0, -1)
    assert trio.agent.eventually(lambda: fetched(trio, user.job) >= ALMOST, LONG_S)


def completed(trio: Trio, user: Sender) -> None:
    """Send the end; the job is carried as ever, gives its input back, and nothing else is left."""
    user.send(-1)
    user.start()
    trio.agent.event("run_moved", job=user.job, stage="returned", seconds=LONG_S)
    assert [*dict.fromkeys(trio.life(user.job))] == WHOLE_LIFE  # whoever was killed lost an offer
    with trio.connect() as client:
        result = client.job(user.job).fetch(trio.home / "result")
    (given,) = [file for file in result.files if file.name == "given"]
    assert given.read_bytes() == trio.some_input().read_bytes()
    assert trio.agent.eventually(lambda: not left(trio))
    assert trio.starts()["a"] == 1


def test_the_first_bytes_are_at_the_site_before_the_last_have_left_the_sender(
    trio: Trio, user: Sender
) -> None:
    begun(trio, user)
    assert user.state() == "draft"
    assert trio.log_of(user.job) == []  # nothing was offered or accepted
    assert not (trio.site / "work" / user.job).exists()
    sent = passed_out(trio, user)
    assert sent >= ALMOST
    completed(trio, user)


def test_what_came_early_does_not_cross_the_line_again(trio: Trio, user: Sender) -> None:
    begun(trio, user)
    user.send(-1)
    user.start()
    trio.agent.event("run_moved", job=user.job, stage="staged", seconds=LONG_S)
    lists = 2 * sum(chunk.size for chunk in user.list)
    assert passed_out(trio, user) <= SIZE + lists


def test_an_agent_killed_in_the_middle_begins_afresh_and_leaves_nothing(
    trio: Trio, user: Sender
) -> None:
    begun(trio, user)
    trio.agent.kill()
    assert left(trio) == [early(trio) / user.job]
    start = len(trio.agent.lines)
    trio.start_agent()
    trio.agent.event("early_fetch_began", start=start, job=user.job)
    completed(trio, user)


def test_what_a_killed_agent_left_of_a_draft_that_is_gone_goes_when_it_starts(
    trio: Trio, user: Sender
) -> None:
    begun(trio, user)
    trio.agent.kill()
    user.lane.cancel(user.job)
    trio.start_agent()
    assert trio.agent.eventually(lambda: not left(trio))


def test_a_draft_that_is_given_up_leaves_nothing(trio: Trio, user: Sender) -> None:
    begun(trio, user)
    user.lane.cancel(user.job)
    assert trio.agent.eventually(lambda: not left(trio), LONG_S)


def test_a_broker_killed_in_the_middle_loses_nothing(trio: Trio, user: Sender) -> None:
    begun(trio, user)
    trio.broker.kill()
    trio.start_broker()
    completed(trio, user)


def test_an_agent_that_is_told_to_stop_does_so_at_once_and_leaves_nothing(
    trio: Trio, user: Sender
) -> None:
    begun(trio, user)
    assert trio.agent.stop() == 0
    assert left(trio) == []


def test_a_draft_for_a_command_that_the_site_disabled_is_not_fetched(
    trio: Trio, user: Sender
) -> None:
    manifest = trio.site / "manifest.toml"
    manifest.write_text(
        manifest.read_text().replace("time_limit_s", "enabled = false\ntime_limit_s")
    )
    user.submit()
    user.declare()
    user.send(0, -1)
    trio.agent.event("early_fetch_declined", job=user.job, code="command.disabled")
    assert passed_out(trio, user) == 0
    assert left(trio) == []
