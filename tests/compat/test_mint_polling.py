"""When the new agent asks an old broker: as seldom as an old agent, and sooner after a failure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sekisho.adapters.http_client import Address
from sekisho.adapters.mailbox_mint import MintMailbox, MintPlace
from sekisho.adapters.mint_line import MintLine
from sekisho.adapters.mint_shelf import MintShelf
from sekisho.domain.errors import Unavailable
from sekisho.domain.token import Secret
from sekisho.wire.mint import job_id_of
from tests.compat.old_broker import TOKEN, OldBroker, old_broker
from tests.compat.test_mint_agent import calc
from tests.virtual_time import VirtualClock

pytestmark = pytest.mark.anyio


@dataclass
class Waiting:
    """A clock that goes on only where somebody sleeps."""

    clock: VirtualClock = field(default_factory=VirtualClock)

    async def sleep(self, seconds: float) -> None:
        self.clock.passed += seconds


@pytest.fixture
def broker() -> Iterator[OldBroker]:
    with old_broker() as broker:
        yield broker


def a_mailbox(broker: OldBroker, place: Path, waiting: Waiting) -> MintMailbox:
    line = MintLine(Address(url=broker.url, token=Secret(TOKEN)))
    mint = MintPlace(site="company", submitter="tanaka")
    return MintMailbox(line, mint, MintShelf(place), waiting.clock, waiting.sleep)


async def poll(mailbox: MintMailbox, wait_s: float = 20.0) -> int:
    answer = await mailbox.poll(free=1, holds=(), cancelling=(), wait_s=wait_s)
    return len(answer.offers)


async def test_it_asks_every_30_seconds(broker: OldBroker, tmp_path: Path) -> None:
    """Kills: asking at every turn of the agent's loop; waiting longer than the agent wants."""
    waiting, asked = Waiting(), []
    async with a_mailbox(broker, tmp_path, waiting) as mailbox:
        for _ in range(9):
            before = len(broker.calls)
            begun = waiting.clock.passed
            await poll(mailbox)
            assert waiting.clock.passed - begun <= 20
            asked += [begun] * (len(broker.calls) - before)
    assert set(broker.calls) == {"calc-request"}
    assert asked == [0.0, 30.0, 60.0]


async def test_a_question_that_failed_is_no_question(broker: OldBroker, tmp_path: Path) -> None:
    """Kills: taking the wait for the next question for an answer, which hides that none comes."""
    waiting = Waiting()
    broker.add(calc())
    broker.cut += ["calc-request"] * 3
    async with a_mailbox(broker, tmp_path, waiting) as mailbox:
        for _ in range(3):
            with pytest.raises(Unavailable):
                await poll(mailbox)
        assert await poll(mailbox) == 1
    assert waiting.clock.passed == 0


async def test_a_calculation_that_was_deleted_is_cancelled_at_the_next_question(
    broker: OldBroker, tmp_path: Path
) -> None:
    """Kills: computing on for nobody, for hours; and asking on about what is being stopped."""
    waiting = Waiting()
    accept_id = broker.add(calc())
    job = job_id_of(accept_id)
    async with a_mailbox(broker, tmp_path, waiting) as mailbox:

        async def cancelled(*cancelling: str) -> list[str]:
            waiting.clock.passed += 30
            answer = await mailbox.poll(free=0, holds=[job], cancelling=cancelling, wait_s=20)
            return answer.cancel

        assert await poll(mailbox) == 1
        assert await cancelled() == []
        del broker.calcs[accept_id]
        assert await cancelled() == [job]
        asked = broker.calls.count("calc-progress")
        assert await cancelled(job) == []
        assert broker.calls.count("calc-progress") == asked
