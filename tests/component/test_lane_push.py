"""Jobs that a site has forgotten: told as such to whoever had submitted them, and released."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec.structs import replace

from sekisho.adapters.job_notes import JobNotes
from sekisho.adapters.lane_memory import MemoryLane
from sekisho.adapters.lane_push import PushLane, PushSite
from sekisho.client.client import Client, new_job_id
from sekisho.client.spec import JobSpec
from sekisho.domain.errors import NotFound
from sekisho.wire.envelope import Outcome

SITE = "kobe"


class House:
    """A site that may forget everything, and a place to submit from."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.site = self.empty()
        script = f"from pathlib import Path; Path({str(place)!r}, 'released').touch()"
        self.hooks = PushSite(name=SITE, host="far", after=(sys.executable, "-c", script))

    def empty(self) -> MemoryLane:
        return MemoryLane(lambda *_: (Outcome(verdict="succeeded"), {}), eager=False)

    def lane(self, state: str = "state") -> PushLane:
        return PushLane(self.hooks, JobNotes(self.place / state), lambda _: self.site)

    @property
    def released(self) -> bool:
        return (self.place / "released").exists()


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


VERBS: dict[str, Callable[[PushLane, str], object]] = {
    "view": lambda lane, job: lane.view(job),
    "start": lambda lane, job: lane.start(job),
    "cancel": lambda lane, job: lane.cancel(job),
    "received": lambda lane, job: lane.received(job),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_job_that_its_site_forgot_is_told_as_forgotten_and_its_host_is_released(
    house: House, verb: str
) -> None:
    job = Client(house.lane()).submit(JobSpec(site=SITE, command="solve")).id
    assert not house.released
    house.site = house.empty()
    with pytest.raises(NotFound) as caught:
        VERBS[verb](house.lane(), job)
    assert caught.value.code == "job.forgotten"
    assert house.released


def test_threads_that_begin_together_share_one_lane_which_is_closed(tmp_path: Path) -> None:
    made: list[ClosedOnce] = []
    begun = threading.Event()

    def lane_at(_: str) -> ClosedOnce:
        made.append(ClosedOnce())
        begun.wait(1)  # nobody else comes meanwhile
        return made[-1]

    lane = PushLane(PushSite(name=SITE, host="far"), JobNotes(tmp_path), lane_at)
    client = Client(lane)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: client.submit(JobSpec(site=SITE, command="solve")), range(4)))
    client.close()
    assert [each.closed for each in made] == [1]


class ClosedOnce(MemoryLane):
    """A lane that counts how often it was closed."""

    def __init__(self) -> None:
        super().__init__(lambda *_: (Outcome(verdict="succeeded"), {}), eager=False)
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def test_a_job_that_was_never_submitted_from_here_is_not_found(house: House) -> None:
    Client(house.lane()).submit(JobSpec(site=SITE, command="solve"))
    for state, job in (("state", new_job_id()), ("elsewhere", new_job_id())):
        with pytest.raises(NotFound) as caught:
            house.lane(state).view(job)
        assert caught.value.code == "job.not_found"


@pytest.mark.parametrize(("seen", "told"), [("queued", "expired"), ("running", "lost")])
def test_what_became_of_a_forgotten_job_is_listed_as_far_as_it_is_known(
    house: House, seen: str, told: str
) -> None:
    job = Client(house.lane()).submit(JobSpec(site=SITE, command="solve"))
    notes = JobNotes(house.place / "state")
    note = notes.find(job.id)
    assert note is not None
    notes.keep(replace(note, last=replace(job.view, state=seen)))
    house.site = house.empty()
    assert [view.state for view in house.lane().jobs().jobs] == [told]
