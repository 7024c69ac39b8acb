"""Answers cut at every byte, and programs over there that are killed in the middle of theirs.

A torn answer is an error that is asked again, or the same truth: never another one. The scripts are
the real ones, run by this machine's shell; what is torn is what comes back.
"""

from __future__ import annotations

import io
import os
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import anyio
import pytest

from sekisho.adapters.bare_files import missing
from sekisho.adapters.hosts.bare import BareHost
from sekisho.adapters.hosts.far import FarHost
from sekisho.adapters.hosts.far_files import FarFiles, Wish
from sekisho.adapters.hosts.ssh import Completed, SshAddress, SshHost
from sekisho.adapters.schedulers.control import Control
from sekisho.adapters.schedulers.detached import DetachedScheduler
from sekisho.adapters.schedulers.dialects import DIALECTS
from sekisho.adapters.schedulers.traces import ArrayTraces
from sekisho.domain.errors import Unavailable
from sekisho.domain.files import Pattern
from sekisho.site.host import STANDARD_ENVIRONMENT, Answer
from sekisho.site.scheduler import Ticket
from sekisho.site.workplace import CollectCaps, Collected
from tests.launching import a_launch
from tests.modes import ORDINARY
from tests.unit.test_dialects import PBS_TWO, TABLES

JOB = "job_" + "0" * 26
TOKEN = "0123456789abcdef"
START = "start {token} 1 2 boot 3 host ."
EXIT = f"{f'exit {TOKEN} 7 1000 2000 .':<199}\n"
LISTINGS = [(system, text, code) for system, text, code, rows in TABLES if len(rows) > 1]


@dataclass
class Torn:
    """Runs command lines here. ``cut`` bytes of a recorded answer come back instead, if set."""

    tools: Path
    cut: int | None = None
    said: bytes = b""
    before: Sequence[str] = ORDINARY

    def killing(self, name: str, size: int) -> None:
        """Have every ``name`` find half of what there is: killed after ``size`` bytes."""
        self.plant(name, f'/usr/bin/{name} "$@" | head -c {size}; kill -s KILL $$')

    def plant(self, name: str, text: str) -> None:
        self.tools.mkdir(exist_ok=True)
        (self.tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.tools / name).chmod(0o755)

    def run(self, argv: Sequence[str], stdin: bytes = b"") -> Answer:
        if self.cut is not None:
            return Answer(0, self.said[: self.cut], b"")
        path = f"{self.tools}:{STANDARD_ENVIRONMENT['PATH']}"
        env = {**STANDARD_ENVIRONMENT, "PATH": path}
        whole = [*self.before, *argv]
        done = subprocess.run(whole, input=stdin, capture_output=True, env=env, check=False)
        self.said = done.stdout
        return Answer(done.returncode, done.stdout, done.stderr)


def torn(tear: Torn, ask: Callable[[], object]) -> int:
    """Ask once whole, then with every prefix of that answer; return how many were refused."""
    truth, refused = ask(), 0
    for size in range(len(tear.said)):
        tear.cut = size
        try:
            assert ask() == truth, tear.said[:size]
        except Unavailable:
            refused += 1
    tear.cut = None
    return refused


# ------------------------------------------------------------------------------ bare sites


class BareTorn(SshHost):
    """A bare site on this machine; the line to it tears."""

    tear: Torn

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60) -> Completed:  # noqa: ARG002
        answer = self.tear.run(argv, stdin)
        return Completed(answer.code, answer.stdout, answer.stderr)


@dataclass
class BareYard:
    """One ended job of a bare site, and the host that tells of it."""

    host: BareHost
    tear: Torn
    place: Path

    def verbs(self) -> dict[str, Callable[[], object]]:
        return {
            "make": lambda: self.host.make(JOB, b'{"a": 1}'),
            "record": lambda: self.host.record(JOB),
            "start": lambda: self.host.start(JOB, TOKEN, ["/bin/true"]),
            "look": lambda: self.host.look({JOB: "running"}, 0)[1],
            "left": lambda: self.host.left(JOB),
            "log": lambda: self.host.log(JOB, len("printed\n")),
        }


@pytest.fixture
def bare(tmp_path: Path) -> BareYard:
    ssh = BareTorn(SshAddress(host="far"), tmp_path)
    ssh.tear = Torn(tmp_path / "tools")
    host = BareHost(ssh, str(tmp_path / "base"))
    host.make(JOB, b'{"a": 1}')
    place = tmp_path / "base" / JOB
    (place / "control" / "latch").mkdir()
    (place / "control" / "latch" / "start").write_text(START.format(token=TOKEN))
    (place / "control" / "exit").write_text(EXIT)
    (place / "control" / "stdout").write_text("printed\n")
    for name in ("a", "the end 0", "d/again", "d/b"):
        (place / "work" / name).parent.mkdir(exist_ok=True)
        (place / "work" / name).write_text(name)
    return BareYard(host, ssh.tear, place)


@pytest.mark.parametrize("verb", ["make", "record", "start", "look", "left", "log"])
def test_a_torn_answer_of_a_bare_site_tells_nothing_else(bare: BareYard, verb: str) -> None:
    """Kills: half a listing as the whole of what a program has left, a record without its end."""
    assert torn(bare.tear, bare.verbs()[verb]) > 0


@pytest.mark.parametrize("size", [0, 1, 5, 20])
def test_a_search_that_is_killed_at_a_bare_site_has_not_found_everything(
    bare: BareYard, size: int
) -> None:
    """The line is good, the script ends well, and yet half of the files were not told."""
    truth = bare.host.left(JOB)
    bare.tear.killing("find", size)
    with pytest.raises(Unavailable, match=r"bare\.strange"):
        bare.host.left(JOB)
    (bare.tear.tools / "find").unlink()
    assert bare.host.left(JOB) == truth


def test_a_folder_that_a_program_has_closed_at_a_bare_site_is_opened(bare: BareYard) -> None:
    """Kills: what is in there as files that the program never made."""
    truth = bare.host.left(JOB)
    closed = bare.place / "work" / "d"
    closed.chmod(0)
    assert bare.host.left(JOB) == truth
    assert truth.whole
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


def test_a_folder_that_stays_closed_at_a_bare_site_is_told(bare: BareYard) -> None:
    truth = bare.host.left(JOB)
    (bare.place / "work" / "d").chmod(0)
    bare.tear.plant("chmod", "exit 0")
    left = bare.host.left(JOB)
    assert not left.whole
    assert set(left.files) < set(truth.files)
    wishes = [Pattern("d/b"), Pattern("a")]
    assert [fault.code for fault in missing(left, wishes)] == ["output.unread", "output.missing"]


def test_a_cancel_that_a_bare_site_has_no_room_for_is_no_cancel(
    bare: BareYard, tmp_path: Path
) -> None:
    """Kills: telling that it was asked for when nothing over there knows of it."""
    job = JOB[:-1] + "1"
    bare.host.make(job, b"{}")
    bare.tear.plant("ln", "exit 1")
    with pytest.raises(Unavailable, match=r"bare\.storage"):
        bare.host.cancel(job)
    (tmp_path / "tools" / "ln").unlink()
    assert bare.host.look({job: ""}, 0)[1][job].word == "making"
    bare.host.cancel(job)
    assert bare.host.look({job: ""}, 0)[1][job].word == "cancelled"


# ------------------------------------------------------------------------------ computing hosts


class FarTorn(FarHost):
    """A computing host on this machine: scripts are run by its own shell."""

    tear: Torn

    def call(self, text: str, words: Sequence[str] = (), **given: Any) -> Answer:
        stdin = given.get("stdin", b"")
        data = stdin if isinstance(stdin, bytes) else stdin.read_bytes()
        return self.tear.run(["sh", "-c", text, "sh", *words], data)

    @contextmanager
    def stream(
        self, text: str, words: Sequence[str] = (), *, stdin: bytes = b""
    ) -> Iterator[IO[bytes]]:
        yield io.BytesIO(self.tear.run(["sh", "-c", text, "sh", *words], stdin).stdout)


@dataclass
class FarYard:
    """One ended job on a computing host."""

    files: FarFiles
    tear: Torn
    place: Path
    caps: CollectCaps = field(default_factory=CollectCaps)

    def survey(self) -> object:
        return self.files.survey(JOB, 1, self.caps)


@pytest.fixture(params=["python", "shell"])
def far(request: pytest.FixtureRequest, tmp_path: Path) -> FarYard:
    host = FarTorn(SshHost(SshAddress(host="far"), tmp_path))
    host.tear = Torn(tmp_path / "tools")
    files = FarFiles(host, str(tmp_path / "base"), python=None if request.param == "python" else "")
    files.look()
    place = tmp_path / "base" / JOB / "1"
    for name in ("work/d", "control"):
        (place / name).mkdir(parents=True)
    (tmp_path / "base").chmod(0o700)
    (place / "work" / "one").write_bytes(b"1" * 30)
    (place / "work" / "d" / "end").write_bytes(b"2")
    (place / "work" / "link").symlink_to("one")
    return FarYard(files, host.tear, place)


def test_what_a_program_has_closed_on_a_computing_host_is_told(far: FarYard) -> None:
    (far.place / "work" / "d").chmod(0)
    (far.place / "work" / "one").chmod(0)
    seen = far.survey()
    assert isinstance(seen, Collected)
    assert seen.found == ()
    assert {(each.path, each.why) for each in seen.withheld} == {
        ("d", "unreadable"),
        ("one", "unreadable"),
        ("link", "symlink"),
    }


def test_a_torn_survey_tells_nothing_else(far: FarYard) -> None:
    assert torn(far.tear, far.survey) > 0


def test_a_torn_copy_is_none(far: FarYard, tmp_path: Path) -> None:
    """Kills: a file that is shorter than it was, or somebody's mark in it."""
    wish = Wish("work", "one", 30)
    got = tmp_path / "got" / "work" / "one"

    def copied() -> object:
        got.unlink(missing_ok=True)
        return far.files.copy(JOB, 1, [wish], tmp_path / "got"), got.read_bytes()

    assert torn(far.tear, copied) > 30


@pytest.mark.parametrize("far", ["shell"], indirect=True)
@pytest.mark.parametrize("size", [0, 4, 20])
def test_a_search_that_is_killed_on_a_computing_host_has_not_found_everything(
    far: FarYard, size: int
) -> None:
    truth = far.survey()
    far.tear.killing("find", size)
    with pytest.raises(Unavailable, match=r"site\.work_base"):
        far.survey()
    (far.tear.tools / "find").unlink()
    assert far.survey() == truth


class WholeOrNot(SshHost):
    """A host whose shell is this machine's, and whose line gives so many bytes back."""

    cut = 0
    status = 0

    def connect(self) -> None:
        pass

    def connected(self) -> bool:
        return True

    def command(self, *_: str) -> list[str]:
        script = f'sh -c "$3" | head -c {self.cut}; exit {self.status}'
        return ["sh", "-c", script, "ssh"]


@pytest.mark.parametrize("status", [0, 255])
def test_what_a_computing_host_says_counts_only_when_it_is_whole(
    tmp_path: Path, status: int
) -> None:
    """Whatever ssh says of its end. Kills: the exit status of a command that nobody has seen."""
    ssh = WholeOrNot(SshAddress(host="far"), tmp_path)
    ssh.status, ssh.cut = status, 1000
    host = FarHost(ssh)
    truth = Answer(12, b"ab\n", b"")
    assert host.call("echo ab; exit 12") == truth
    size = len("\n>\n") + len("\n<\n") + 2 * 24 + len("ab\n12")
    for ssh.cut in range(size):
        with pytest.raises(Unavailable):
            host.call("echo ab; exit 12")
    ssh.cut = size
    assert host.call("echo ab; exit 12") == truth


# ------------------------------------------------------------------------------ control directories


class HostTorn:
    """`Host` on this machine."""

    def __init__(self, tear: Torn) -> None:
        self.tear = tear

    async def run(
        self,
        argv: tuple[str, ...],
        *,
        stdin: bytes = b"",
        cwd: str = "/",  # noqa: ARG002
        env: Mapping[str, str] | None = None,  # noqa: ARG002
        timeout_s: float = 60.0,  # noqa: ARG002
    ) -> Answer:
        return self.tear.run(argv, stdin)


@pytest.fixture
def control(tmp_path: Path) -> str:
    """A control directory in which a wrapper has come to its end."""
    place = tmp_path / "control"
    (place / "latch").mkdir(parents=True)
    (place / "latch" / "start").write_text(START.format(token=TOKEN) + "\n")
    (place / "exit").write_text(EXIT)
    return str(place)


def test_torn_words_of_records_are_no_records(tmp_path: Path, control: str) -> None:
    """Kills: a job without the exit record that the answer was about to tell."""
    tear = Torn(tmp_path / "tools")
    reader = Control(HostTorn(tear), 60)

    def read() -> object:
        return anyio.run(reader.read, [control, str(tmp_path / "not-there")])

    assert torn(tear, read) == len(tear.said)


def test_a_record_that_cannot_be_read_just_now_is_not_missing(tmp_path: Path, control: str) -> None:
    tear = Torn(tmp_path / "tools")
    reader = Control(HostTorn(tear), 60)
    tear.killing("dd", 3)
    with pytest.raises(Unavailable):
        anyio.run(reader.read, [control])
    (tear.tools / "dd").unlink()
    assert anyio.run(reader.read, [control])[control].exit.split() == EXIT.split()


@pytest.fixture
def sweep(tmp_path: Path) -> Ticket:
    """An array of four: two have come to their end, one has begun, one has not."""
    place = tmp_path / "sweep"
    for number in range(4):
        (place / str(number)).mkdir(parents=True)
    for number in range(3):
        (place / str(number) / "latch").mkdir()
    for number in range(2):
        (place / str(number) / "exit").write_text(EXIT.replace(TOKEN, f"{TOKEN}-{number}"))
    here = str(place)
    return Ticket(token=TOKEN, work_dir=here, control_dir=here, reference="1", elements=4)


def test_torn_words_of_an_array_are_no_records(tmp_path: Path, sweep: Ticket) -> None:
    """Kills: an element without the end that the answer was about to tell."""
    tear = Torn(tmp_path / "tools")
    reader = Control(HostTorn(tear), 60)
    other = replace(sweep, control_dir=str(tmp_path / "not-there"))

    def read() -> object:
        return anyio.run(reader.look, [sweep, other])

    assert torn(tear, read) == len(tear.said)
    seen = anyio.run(reader.look, [sweep])[sweep.control_dir]
    assert isinstance(seen, ArrayTraces)
    assert (seen.latches, len(seen.exits)) == ("tttf", 2)


@pytest.mark.parametrize("tool", ["find", "sed"])
def test_records_of_elements_that_cannot_be_read_just_now_are_not_missing(
    tmp_path: Path, sweep: Ticket, tool: str
) -> None:
    tear = Torn(tmp_path / "tools")
    reader = Control(HostTorn(tear), 60)
    tear.killing(tool, 0)
    with pytest.raises(Unavailable):
        anyio.run(reader.look, [sweep])
    (tear.tools / tool).unlink()
    seen = anyio.run(reader.look, [sweep])[sweep.control_dir]
    assert isinstance(seen, ArrayTraces)
    assert len(seen.exits) == 2


def test_what_a_batch_job_runs_waits_for_room_and_leaves_nothing_half(tmp_path: Path) -> None:
    """A job ends as failed for what passes, or is submitted with half of a script. Kills both."""
    tear = Torn(tmp_path / "tools")
    spec = a_launch(tmp_path, "/bin/true")
    placed = Control(HostTorn(tear), 60).place
    for name, text, code in (
        ("cat", "/usr/bin/head -c 20; exit 1", "site.disk_full"),
        ("cat", "/usr/bin/head -c 20", "host.unreachable"),
    ):
        tear.plant(name, text)
        with pytest.raises(Unavailable) as fault:
            anyio.run(placed, spec)
        assert fault.value.code == code
        (tear.tools / name).unlink()
        assert {file.name for file in Path(spec.control_dir).iterdir()} <= {"script"}
    assert anyio.run(placed, spec) is True
    assert {file.name for file in Path(spec.control_dir).iterdir()} == {"script", "launch"}


@dataclass
class Alive:
    """A process that its first environment calls a job's."""

    scheduler: DetachedScheduler
    tear: Torn
    find: Callable[[], object]


@pytest.fixture
def alive(tmp_path: Path) -> Iterator[Alive]:
    tear = Torn(tmp_path / "tools", before=())  # it looks at our own processes
    spec = a_launch(tmp_path, "/bin/true")
    scheduler = DetachedScheduler(HostTorn(tear))
    env = {**os.environ, "CALC_DIR": spec.work_dir}
    with subprocess.Popen(["sleep", "600"], env=env) as process:
        yield Alive(scheduler, tear, lambda: anyio.run(scheduler.find, spec))
        process.kill()


def test_a_search_for_processes_that_is_killed_does_not_say_that_there_are_none(
    alive: Alive,
) -> None:
    assert alive.find() is not None
    alive.tear.killing("grep", 0)
    with pytest.raises(Unavailable):
        alive.find()
    (alive.tear.tools / "grep").unlink()
    assert alive.find() is not None


# ------------------------------------------------------------------------------ batch systems


@pytest.mark.parametrize(("system", "listing", "code"), LISTINGS)
def test_a_listing_cut_anywhere_tells_of_jobs_as_they_are_or_not_at_all(
    system: str, listing: str, code: int
) -> None:
    """A job that is missing must be missing twice; one that is told wrongly would be believed."""
    rows = DIALECTS[system].rows
    truth, refused = rows(Answer(code, listing.encode(), b"")), 0
    assert len(truth) > 1
    for size in range(1, len(listing)):
        try:
            told = rows(Answer(code, listing[:size].encode(), b""))
        except Unavailable:
            refused += 1
        else:
            assert told == truth[: len(told)], listing[:size]
    assert refused > size / 2


def test_a_server_that_went_away_in_the_middle_has_not_told_of_all_jobs() -> None:
    """Kills: the jobs that it did not come to as gone, because one before them was."""
    rows = DIALECTS["pbs"].rows
    gone = b"qstat: Unknown Job Id 11.pbs01\n"
    assert len(rows(Answer(153, PBS_TWO.encode(), gone))) == 2
    with pytest.raises(Unavailable):
        rows(Answer(153, PBS_TWO.encode(), gone + b"qstat: cannot connect to server pbs01\n"))
