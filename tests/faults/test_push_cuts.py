"""Cut lines, restarted servers and killed programs in push mode, at both kinds of site.

One job, one start, one result; and what had arrived before a cut is not sent again.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from sekisho.client.client import Client, new_job_id
from sekisho.client.spec import JobSpec
from sekisho.config.client import SshSite
from sekisho.domain.job import JobState
from tests.gated import SITE as GATED
from tests.two_sites import BARE, TwoSites, a_slow, two_sites
from tests.waiting import until
from tests.wire import Wire, wire

pytestmark = pytest.mark.time_limit(600)
MIB = 1 << 20
CUTS = 20
MINUTE_S = 60.0
AFTER = 6  #: so many more while the result comes back
MOMENTS = 10
SITES = (GATED, BARE)
_DICE = random.Random(20)


@pytest.fixture
def line_and_sites(tmp_path: Path) -> Iterator[tuple[Wire, TwoSites]]:
    with two_sites(tmp_path) as made, wire(made.house.server.port) as line:
        made.way = [f"Port {line.port}"]
        made.settle()
        yield line, made


@pytest.fixture
def line(line_and_sites: tuple[Wire, TwoSites]) -> Wire:
    return line_and_sites[0]


@pytest.fixture
def sites(line_and_sites: tuple[Wire, TwoSites]) -> TwoSites:
    return line_and_sites[1]


def programs(sites: TwoSites) -> list[int]:
    """Return the ssh and rsync processes of this test's clients: by its settings in their words."""
    mark = str(sites.place / "ssh_config").encode()
    found = []
    for place in Path("/proc").iterdir():
        with suppress(OSError):
            words = (place / "cmdline").read_bytes() if place.name.isdigit() else b""
            if mark in words and words.startswith((b"ssh", b"rsync")):
                found.append(int(place.name))
    return sorted(found)


def kill(pids: list[int]) -> None:
    send(pids, signal.SIGKILL)


WAYS: list[Callable[[Wire, TwoSites], object]] = [
    lambda line, _: line.cut(),
    lambda _, sites: sites.house.server.cut(),
    lambda _, sites: kill(programs(sites)[:1]),
    lambda _, sites: kill(programs(sites)[-1:]),
    lambda _, sites: kill(programs(sites)),
]


class Breaker:
    """Breaks the line again and again, each time in another way, at random moments of a minute.

    When the minute is over the command may end; then the line breaks while the result comes back.
    """

    def __init__(self, line: Wire, sites: TwoSites) -> None:
        self.done = 0
        self._over = threading.Event()
        self._line, self._sites = line, sites
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        began = time.monotonic()
        for moment in sorted(_DICE.uniform(0, MINUTE_S) for _ in range(CUTS)):
            self._break(began + moment - time.monotonic())
        self._over.wait(began + MINUTE_S - time.monotonic())
        self._sites.house.site.go.touch()
        for _ in range(AFTER):
            self._break(_DICE.uniform(0.05, 0.8))

    def _break(self, wait_s: float) -> None:
        if not self._over.wait(max(0.0, wait_s)):
            WAYS[self.done % len(WAYS)](self._line, self._sites)
            self.done += 1

    def __enter__(self) -> Breaker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@pytest.mark.parametrize("site", SITES)
def test_a_job_of_a_minute_cut_at_twenty_moments_loses_nothing_and_starts_once(
    line: Wire, sites: TwoSites, tmp_path: Path, site: str
) -> None:
    content = os.urandom(12 * MIB)
    with sites.client() as client, Breaker(line, sites) as breaker:
        job = client.submit(a_slow(tmp_path, site, content))
        result = job.result(tmp_path / "result")
    assert breaker.done >= CUTS
    assert sites.house.site.starts() == 1
    assert result.state == JobState.SUCCEEDED
    assert [file.name for file in result.files] == ["out.txt"]
    assert (tmp_path / "result" / "out.txt").read_bytes() == content


@pytest.mark.parametrize("site", SITES)
def test_a_restarted_sshd_is_found_again(sites: TwoSites, tmp_path: Path, site: str) -> None:
    server = sites.house.server
    with sites.client() as client, ThreadPoolExecutor(1) as other:
        job = client.submit(JobSpec(site=site, command="wait", outputs=["out.txt"]))
        until(lambda: sites.house.site.starts() == 1)
        waiting = other.submit(job.result, tmp_path / "r")
        server.cut()
        server.stop()
        sites.house.site.go.touch()  # it ends while nobody can ask
        server.start()
        assert waiting.result(120).state == JobState.SUCCEEDED
    assert sites.house.site.starts() == 1
    assert (tmp_path / "r" / "out.txt").read_text() == "done\n"


@pytest.mark.parametrize("site", SITES)
def test_a_client_killed_at_any_moment_is_continued_by_another_process(
    sites: TwoSites, tmp_path: Path, site: str
) -> None:
    """The first whole run says how long one takes; the others are killed at moments of it."""
    content = os.urandom(6 * MIB)
    (tmp_path / "in.txt").write_bytes(content)
    sites.house.site.go.touch()

    def words(job: str, into: str) -> tuple[str, ...]:
        given = ("--input", "in.txt", "--output", "out.txt")
        return "run", site, "slow", "--id", job, *given, "--into", into

    began = time.monotonic()
    with sites.sekisho(*words(new_job_id(), "whole")) as first:
        first.communicate(timeout=120)
    whole_s = time.monotonic() - began
    jobs = [new_job_id() for _ in range(MOMENTS)]
    for nth, job in enumerate(jobs):
        into = f"part{nth}"
        with sites.sekisho(*words(job, into)) as killed:
            with suppress(subprocess.TimeoutExpired):
                killed.wait(whole_s * (nth + _DICE.random()) / MOMENTS)
            killed.kill()
            killed.communicate()
        with sites.sekisho(*words(job, into)) as again:
            _, said = again.communicate(timeout=120)
        assert again.returncode == 0, said
        assert (tmp_path / into / "out.txt").read_bytes() == content
        assert sites.house.site.starts() == nth + 2
    with sites.sekisho("wait", jobs[-1], "--into", "later") as third:
        third.communicate(timeout=120)
    assert third.returncode == 0
    assert (tmp_path / "later" / "out.txt").read_bytes() == content


@pytest.mark.parametrize("site", SITES)
def test_clients_that_wait_for_one_job_all_get_its_result(
    sites: TwoSites, tmp_path: Path, site: str
) -> None:
    """Two of one host, and one of another host of the workflow side, that has never heard of it."""
    with sites.client() as client:
        job = client.submit(JobSpec(site=site, command="wait", outputs=["out.txt"]))
        until(lambda: sites.house.site.starts() == 1)
        with ExitStack() as stack:
            waits = [
                stack.enter_context(sites.sekisho("wait", job.id, "--into", name, state=state))
                for name, state in (("a", "state"), ("b", "state"), ("c", "elsewhere"))
            ]
            until(lambda: len(sessions(sites)) >= len(waits))
            sites.house.site.go.touch()
            said = [process.communicate(timeout=120)[1] for process in waits]
        assert [process.returncode for process in waits] == [0, 0, 0], said
    assert {(tmp_path / n / "out.txt").read_text() for n in "abc"} == {"done\n"}
    assert sites.house.site.starts() == 1


def sessions(sites: TwoSites) -> list[int]:
    """Return the programs that use a shared connection; the connections themselves are others."""

    def shared(pid: int) -> bool:
        with suppress(OSError):
            return b"ControlMaster=no" in Path(f"/proc/{pid}/cmdline").read_bytes()
        return False

    return [pid for pid in programs(sites) if shared(pid)]


# --------------------------------------------------------------------- bytes, counted

SIZE = 96 * MIB
#: What may be on its way when the line is cut: two parts, and what pipes and sockets hold.
UNDER_WAY = 20 * MIB
#: At these shares of the whole; who began anew would send the sum of them in vain, 2.1 times all.
SHARES = (0.45, 0.7, 0.95)


@contextmanager
def cut_at(
    line: Wire, count: Callable[[], int], cut: Callable[[], object] | None = None
) -> Iterator[list[int]]:
    """Cut the line whenever ``count`` has come to the next share of the whole; tell where."""
    cut = cut or line.cut
    over = threading.Event()
    cuts: list[int] = []
    start = count()

    def watch() -> None:
        for share in SHARES:
            while count() - start < share * SIZE:
                if over.wait(0.005):
                    return
            cuts.append(count() - start)
            cut()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield cuts
    finally:
        over.set()
        watcher.join()


@pytest.mark.parametrize("site", SITES)
def test_what_had_arrived_before_a_cut_is_not_sent_again(
    line: Wire, sites: TwoSites, tmp_path: Path, site: str
) -> None:
    content = random.Random(SIZE).randbytes(SIZE)
    sites.house.site.go.touch()
    with sites.client() as client:
        with cut_at(line, lambda: line.out) as cuts:
            job = client.submit(a_slow(tmp_path, site, content))
        assert len(cuts) == len(SHARES)
        assert line.out < SIZE + len(cuts) * UNDER_WAY
        before = line.back
        with cut_at(line, lambda: line.back) as cuts:
            job.result(tmp_path / "r")
        assert len(cuts) == len(SHARES)
        assert SIZE < line.back - before < SIZE + len(cuts) * UNDER_WAY
    assert (tmp_path / "r" / "out.txt").read_bytes() == content
    assert sites.house.site.starts() == 1


def test_a_killed_rsync_leaves_nothing_in_the_result_and_is_gone_on_from(
    line: Wire, sites: TwoSites, tmp_path: Path
) -> None:
    """Killed without a chance to keep its half of a file under a name that the next one knows."""
    content = random.Random(SIZE).randbytes(SIZE)
    sites.house.site.go.touch()
    with sites.client() as client:
        job = client.submit(a_slow(tmp_path, BARE, content))
        before = line.back
        with cut_at(line, lambda: line.back, lambda: kill(rsyncs(sites))) as cuts:
            result = job.result(tmp_path / "r")
    assert len(cuts) == len(SHARES)
    assert line.back - before < SIZE + len(cuts) * UNDER_WAY
    assert [file.name for file in result.files] == ["out.txt"]
    assert [file.name for file in (tmp_path / "r").rglob("*")] == ["out.txt"]
    assert (tmp_path / "r" / "out.txt").read_bytes() == content


def test_what_is_slow_to_notice_a_cut_keeps_what_it_had_before_more_is_sent(
    line: Wire, sites: TwoSites, tmp_path: Path
) -> None:
    """The rsync over there is held as by a busy machine, until the next try is on its way."""
    content = random.Random(SIZE).randbytes(SIZE)
    sites.house.site.go.touch()
    held: list[int] = []
    timers: list[threading.Timer] = []

    def cut() -> None:
        if not held:
            held.extend(receivers(sites))
            send(held, signal.SIGSTOP)
            line.cut()
            timers.append(threading.Timer(1.5, send, (held, signal.SIGCONT)))
            timers[0].start()

    try:
        with sites.client() as client, cut_at(line, lambda: line.out, cut):
            job = client.submit(a_slow(tmp_path, BARE, content))
        assert len(held) > 0
        assert line.out < SIZE + UNDER_WAY
    finally:
        for timer in timers:
            timer.join()
    with sites.client() as client:
        client.job(job.id).result(tmp_path / "r")
    assert (tmp_path / "r" / "out.txt").read_bytes() == content
    assert [file.name for file in (tmp_path / "r").rglob("*")] == ["out.txt"]


def test_an_rsync_that_is_killed_over_there_leaves_nothing_beside_the_inputs(
    line: Wire, sites: TwoSites, tmp_path: Path
) -> None:
    content = random.Random(SIZE).randbytes(SIZE)
    killed: list[int] = []

    def once() -> None:
        if not killed:
            killed.extend(receivers(sites))
            kill(killed)

    with sites.client() as client:
        with cut_at(line, lambda: line.out, once):
            job = client.submit(a_slow(tmp_path, BARE, content))
        assert len(killed) > 0
        until(lambda: sites.house.site.starts() == 1)
        (work,) = tmp_path.rglob(f"{job.id}/work")
        assert [file.name for file in work.iterdir()] == ["in.txt"]
        sites.house.site.go.touch()
        job.result(tmp_path / "r")
    assert (tmp_path / "r" / "out.txt").read_bytes() == content


def receivers(sites: TwoSites) -> list[int]:
    """Return the rsync processes of the site's end."""
    here = [pid for pid in sites.house.server.children() if pid]
    return [pid for pid in here if Path(f"/proc/{pid}/comm").read_bytes() == b"rsync\n"]


def send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def rsyncs(sites: TwoSites) -> list[int]:
    return [p for p in programs(sites) if Path(f"/proc/{p}/comm").read_bytes() == b"rsync\n"]


def test_what_one_submitter_sent_through_a_gate_is_no_cache_for_another(
    line: Wire, sites: TwoSites, tmp_path: Path
) -> None:
    content = random.Random(7).randbytes(4 * MIB)
    sites.house.site.go.touch()
    sent = []
    mine, theirs = sites.house.key, sites.house.others
    for key in (mine, mine, theirs, theirs):
        sites.house.key = key
        with sites.client() as client:
            before = line.out
            client.submit(a_slow(tmp_path, GATED, content)).wait()
            sent.append(line.out - before)
    assert [size > 4 * MIB for size in sent] == [True, False, True, False]
    assert max(sent[1], sent[3]) < MIB // 2


# ---------------------------------------------------------------------- logins, counted

BANNED_ABOVE = 10  #: logins within a minute
JOBS = 100
CUTS_BETWEEN = 14


@pytest.mark.parametrize("site", SITES)
def test_a_host_that_bans_on_many_logins_is_never_upset(
    line: Wire, sites: TwoSites, site: str
) -> None:
    """A hundred small jobs and cuts between them, with the settings as they are by default.

    Without a limit of our own there would be more logins within a minute than such a host bears.
    """
    sites.logins_per_minute = SshSite(mode="ssh").logins_per_minute
    sites.settle()
    done = threading.Semaphore(0)

    def one(client: Client) -> str:
        state = client.submit(JobSpec(site=site, command="noop")).wait().state
        done.release()
        return state

    def cut_often() -> None:
        for _ in range(CUTS_BETWEEN):
            for _ in range(JOBS // (CUTS_BETWEEN + 1)):
                done.acquire()
            line.cut()

    cutter = threading.Thread(target=cut_often)
    with sites.client() as client, ThreadPoolExecutor(4) as pool:
        cutter.start()
        states = list(pool.map(lambda _: one(client), range(JOBS)))
        cutter.join()
    assert states == [JobState.SUCCEEDED] * JOBS
    at = line.accepted
    assert len(at) > BANNED_ABOVE + 1
    assert max(sum(began <= t < began + 60 for t in at) for began in at) <= BANNED_ABOVE
