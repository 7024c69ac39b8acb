"""A job that this machine has no note of: which lane is asked for it, and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from sekisho.adapters.job_notes import JobNotes
from sekisho.adapters.lane_routed import RoutedLane
from sekisho.client.client import Line
from sekisho.domain.errors import NotFound, SekishoError, Unreachable

JOB = "job_01m834rntj6z7qa66t1hc57hvg"


@dataclass
class Lane:
    """Answers ``fault``, or knows the job; remembers how it was asked."""

    fault: SekishoError | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)

    def view(self, job_id: str, **words: Any) -> str:
        self.asked.append(words)
        if self.fault is not None:
            raise self.fault
        return job_id


def routed(place: Path, broker: Lane | None, *lanes: Lane) -> RoutedLane:
    named = {f"site-{number}": cast("Line", lane) for number, lane in enumerate(lanes)}
    return RoutedLane(named, cast("Line | None", broker), JobNotes(place))


def test_a_job_of_the_brokers_is_found_without_a_word_to_any_host(tmp_path: Path) -> None:
    broker, host = Lane(), Lane()
    lane = routed(tmp_path, broker, host)
    lane.view(JOB)
    lane.view(JOB)
    assert (len(broker.asked), host.asked) == (3, [])  # looked for once


def test_a_job_of_a_host_is_found_behind_one_that_is_away(tmp_path: Path) -> None:
    broker, away, host = Lane(NotFound("job.not_found")), Lane(Unreachable()), Lane()
    routed(tmp_path, broker, away, host).view(JOB)
    assert len(host.asked) == 2  # found, then asked
    assert away.asked == [{"patience_s": 0}], "nobody waits for it"


def test_when_one_cannot_tell_that_is_the_answer(tmp_path: Path) -> None:
    nobody, away = Lane(NotFound("job.not_found")), Lane(Unreachable("ssh.unreachable"))
    with pytest.raises(Unreachable):
        routed(tmp_path, nobody, away, nobody).view(JOB)
    with pytest.raises(NotFound):
        routed(tmp_path, nobody, nobody).view(JOB)
