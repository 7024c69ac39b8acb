"""Looks at a bare site: few for many who wait, rarer the longer nothing happens."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from sekisho.adapters import bare_watch
from sekisho.adapters.bare_watch import Watch
from sekisho.adapters.hosts import bare
from sekisho.adapters.hosts.bare import Seen
from tests.waiting import until

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Host:
    """A host on which nothing happens: a look takes, by its clock, as long as it may."""

    def __init__(self) -> None:
        self.now = 0.0
        self.looks: list[float] = []
        self.before: Callable[[Mapping[str, str]], object] = lambda _: None

    def monotonic(self) -> float:
        return self.now

    def look(self, words: Mapping[str, str], wait_s: float) -> tuple[datetime, dict[str, Seen]]:
        self.looks.append(wait_s)
        self.before(words)
        self.now += wait_s
        return NOW, {job: Seen(word="running") for job in words}


def test_who_waits_alone_is_answered_by_one_long_look() -> None:
    host = Host()
    Watch(host.look, host.monotonic).news("a", "running", 25)
    assert host.looks == [25]


def waits_of_two(host: Host, rounds: int) -> list[float]:
    """Return how long the looks last while somebody always waits for another job as well."""
    watch = Watch(host.look, host.monotonic)
    held, going = threading.Event(), threading.Event()

    def hold(words: Mapping[str, str]) -> None:
        if "other" in words:
            held.set()
            going.wait()

    host.before = hold
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(watch.news, "other", "running", 25)
        held.wait()
        host.looks.clear()
        for _ in range(rounds):
            watch.news("a", "running", 25)
        going.set()
        other.result(30)
    return host.looks[:rounds]


def test_looks_for_several_are_short_and_grow_while_there_is_no_news() -> None:
    """Killed by: a steady pace, however long nothing has happened."""
    waits = waits_of_two(Host(), 120)
    assert waits[:10] == [3.0] * 10
    assert waits == sorted(waits)
    assert waits[-1] == 20.0
    assert sum(waits) > 1000


def test_news_make_the_looks_short_again() -> None:
    host = Host()
    watch = Watch(host.look, host.monotonic)
    for word in ("running", "running", "ready", "running"):
        watch.news("a", word, 25)
    assert watch._calm_s("a") == 25  # noqa: SLF001 (of the last look alone)


def test_many_who_wait_share_few_looks() -> None:
    host = Host()
    watch = Watch(host.look, host.monotonic)
    jobs = [f"job{n}" for n in range(30)]
    most: list[int] = []
    under_way: set[int] = set()
    guard, going = threading.Lock(), threading.Event()

    def hold(words: Mapping[str, str]) -> None:
        with guard:
            under_way.add(id(words))
            most.append(len(under_way))
        going.wait()
        with guard:
            under_way.discard(id(words))

    host.before = hold
    with ThreadPoolExecutor(len(jobs)) as pool:
        waiting = [pool.submit(watch.news, job, "running", 0) for job in jobs]
        until(lambda: len(most) == bare_watch.LOOKS)
        going.set()
        assert {seen.result(30).word for seen in waiting} == {"running"}
    assert max(most) == bare_watch.LOOKS
    assert len(host.looks) < len(jobs)


CLOCK = """#!/bin/sh
case $0 in
*/sleep) echo "$1" >>"{place}/slept" ;;
*) awk '{{ s += $1 }} END {{ printf "%d\\n", s }}' "{place}/slept" ;;
esac
"""


def test_a_look_at_the_host_begins_quickly_and_grows_to_seconds(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tmp_path / "slept").touch()
    for name in ("sleep", "date"):
        (tools / name).write_text(CLOCK.format(place=tmp_path))
        (tools / name).chmod(0o755)
    job = tmp_path / "base" / "job_a"
    (job / "control").mkdir(parents=True)
    (job / "record").touch()
    script = Path(bare.__file__).with_name("bare.sh").read_text()
    argv = ["sh", "-c", script, "sekisho", "look", str(tmp_path / "base"), "60", "job_a=making"]
    path = f"{tools}:/usr/bin:/bin"
    said = subprocess.run(argv, env={"PATH": path}, capture_output=True, check=True, text=True)
    assert said.stdout.splitlines()[1] == "job_a 0 making"
    pauses = [float(line) for line in (tmp_path / "slept").read_text().split()]
    assert pauses[0] <= 0.02
    assert pauses == sorted(pauses)
    assert all(after <= 2.1 * before for before, after in pairwise(pauses))
    assert pauses[-1] == 3
    assert len(pauses) < 30
