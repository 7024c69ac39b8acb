"""The far shell of a bare site is killed inside each of its verbs, and each tool that it calls.

The shell dies (SIGKILL) before its nth call of the system, in the first verb of a kind: between any
two commands of the script, amid a redirection, before a word of its answer. Or the nth tool dies
before it does anything, and the shell goes on. A first job, in which nobody dies, tells how many
such moments there are. The caller tries again: one start, one honest end, the right bytes, and
nothing is left there but the job's own files.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sekisho.adapters.hosts.bare import BareHost
from sekisho.adapters.job_notes import JobNotes
from sekisho.adapters.lane_bare import BareLane
from sekisho.adapters.patience import Patience, Repeats
from sekisho.client.client import Client, new_job_id
from sekisho.client.spec import JobSpec
from sekisho.compose.bare import bare_site
from sekisho.compose.push import ssh_host
from sekisho.config.client import load_client
from tests.bare_site import SITE, BareWorld, bare_world
from tests.waiting import until

pytestmark = pytest.mark.time_limit(600)
#: `SEKISHO_SWEEP=full` tries every moment; usually it is one in so many.
EVERY = 1 if os.environ.get("SEKISHO_SWEEP") == "full" else 7
SECONDS = 120
#: What the shell itself asks of the system, each counted by itself; what it starts is not traced.
CALLS = ("clone", "vfork", "openat", "write", "chdir", "exit_group")
TOOLS = (
    *("cat", "date", "find", "grep", "ln", "ls", "mkdir", "mv", "rm", "rmdir", "setsid", "sleep"),
    *("sync", "tail", "wc"),
)
#: What a job's directory may hold, when it has ended and nothing was removed.
KEPT = {"record", "ready", "control", "work", "inputs"}
_POST = """\
#!/bin/sh
line=$SSH_ORIGINAL_COMMAND
step=other
case $line in
*"' 'sekisho' '"*)
    step=${{line##*"' 'sekisho' '"}}
    step=${{step%%"'"*}}
    ;;
*'rsync --server'*) step=rsync ;;
esac
if [ -e {place}/broken.$step ]; then
    rm {place}/broken.$step
    exit 255
fi
read -r tool trace <{place}/armed.$step || eval "exec $line"
rm {place}/armed.$step
echo "$tool" >{place}/left
PATH={place}/tools:$PATH
export PATH
eval "exec strace -D -q -o {place}/trace $trace $line"
"""
_TOOL = """\
#!/bin/sh
left=
read -r left <{place}/left
echo "$((left - 1))" >{place}/left
if [ "$left" = 1 ]; then
    echo {name} >{place}/died
    kill -KILL $$
fi
exec {true} "$@"
"""


@dataclass
class Yard:
    """A bare site whose shells can be killed, and its caller."""

    world: BareWorld
    place: Path

    def arm(self, step: str, tool: int, trace: str) -> None:
        """Let the ``tool``th tool of the next such verb die, and trace its shell so."""
        for name in ("trace", "died"):
            (self.place / name).unlink(missing_ok=True)
        (self.place / f"armed.{step}").write_text(f"{tool} {trace}\n")

    def traced(self) -> str:
        """Return what the shell did in the verb that was armed, which has been asked for."""
        assert not list(self.place.glob("armed.*"))
        trace = self.place / "trace"
        until(lambda: trace.exists() and "+++" in trace.read_text(), "the end of the trace")
        return trace.read_text()

    def tools(self) -> int:
        return -int((self.place / "left").read_text())

    def killed(self) -> bool:
        return (self.place / "died").exists() or "killed by SIGKILL" in self.traced()

    def host(self) -> BareHost:
        files = load_client(self.world.config)
        return BareHost(ssh_host(files.settings.site[SITE], files, SITE), str(self.world.base))

    @contextmanager
    def client(self, state: str = "state") -> Iterator[Client]:
        site = load_client(self.world.config).settings.site[SITE]
        soon = Patience(limit_s=SECONDS, wait=lambda s: threading.Event().wait(min(s, 0.02)))
        notes = JobNotes(self.place / state)
        with Client(BareLane(bare_site(SITE, site), self.host(), notes, soon)) as client:
            yield client

    def starts(self, job: str) -> int:
        file = self.world.place / "starts"
        return file.read_text().count(job) if file.exists() else 0

    def left(self, job: str) -> set[str]:
        """Return what is in a job's directory, but what a killed `make` leaves till it goes."""
        names = {entry.name for entry in self.world.job_directory(job).iterdir()}
        return {name for name in names if not name.startswith("record.")}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    place = tmp_path_factory.mktemp("far")
    (place / "tools").mkdir()
    for name in TOOLS:
        file = place / "tools" / name
        file.write_text(_TOOL.format(place=place, name=name, true=shutil.which(name)))
        file.chmod(0o755)
    with bare_world(place) as world:
        started = f'echo "$CALC_DIR" >>"{place}/starts"'
        world.program("copy", f"{started}; echo printed; cp in.dat out.dat")
        world.program("make", f"{started}; echo made >out.dat")
        world.program("hold", f"{started}; echo up >up; exec sleep 600")
        world.settle()
        post = place / "post"
        post.write_text(_POST.format(place=place))
        post.chmod(0o755)
        key = (world.server.place / "key.pub").read_text()
        world.server.authorize(f'command="{post}" {key}')
        yield Yard(world, place)


@pytest.fixture
def yard(shared: Yard, monkeypatch: pytest.MonkeyPatch) -> Yard:
    for name, value in shared.world.environ().items():
        monkeypatch.setenv(name, value)
    return shared


def moments(yard: Yard, step: str, course: Callable[[], object]) -> list[tuple[int, str]]:
    """Return the deaths that a verb can meet, as `Yard.arm` takes them, after a ``course``."""
    yard.arm(step, 0, f"-e trace={','.join(CALLS)}")
    course()
    done = Counter(re.findall(r"^(\w+)\(", yard.traced(), re.MULTILINE))
    shell = [
        (0, f"-e trace={call} -e inject={call}:signal=KILL:when={nth + 1}")
        for call in CALLS
        for nth in range(done[call])
    ]
    return [*shell, *((nth + 1, "-e trace=none") for nth in range(yard.tools()))]


def sweep(yard: Yard, step: str, course: Callable[[], object]) -> None:
    """Go through ``course`` once for each of these deaths."""
    planned = moments(yard, step, course)[::EVERY]
    killed = 0
    for tool, trace in planned:
        yard.arm(step, tool, trace)
        try:
            course()
        except Exception as error:
            raise AssertionError((step, tool, trace)) from error
        killed += yard.killed()
    assert killed > len(planned) / 2  # a look or a wait may be over sooner than the first one


def a_job_with_inputs(yard: Yard, state: str = "state") -> None:
    given, job = os.urandom(5000), new_job_id()
    (yard.place / "in.dat").write_bytes(given)
    spec = JobSpec(site=SITE, command="copy", inputs=[yard.place / "in.dat"])
    with yard.client() as client:
        client.submit(spec, job_id=job)
    with yard.client(state) as client:
        client.job(job).result(yard.place / job)
    got = {file.name: file.read_bytes() for file in (yard.place / job).iterdir()}
    assert got == {"out.dat": given, "remote_program_exec.log": b"printed\n"}
    assert yard.starts(job) == 1
    assert yard.left(job) <= KEPT


def a_job_without(yard: Yard) -> None:
    job = new_job_id()
    with yard.client() as client:
        client.submit(JobSpec(site=SITE, command="make"), job_id=job).result(yard.place / job)
    assert {file.name for file in (yard.place / job).iterdir()} == {"out.dat"}
    assert yard.starts(job) == 1
    assert yard.left(job) <= KEPT


def a_job_resumed(yard: Yard) -> None:
    """The first transfer of inputs breaks, so that the second waits for the rest of it."""
    (yard.place / "broken.rsync").touch()
    a_job_with_inputs(yard)


def a_job_cancelled(yard: Yard) -> None:
    job = new_job_id()
    with yard.client() as client:
        held = client.submit(JobSpec(site=SITE, command="hold"), job_id=job)
        until((yard.world.job_directory(job) / "work" / "up").exists)
        held.cancel()
        assert held.wait(timeout=SECONDS).state == "cancelled"
    assert yard.starts(job) == 1


def a_job_cancelled_in_time(yard: Yard) -> None:
    job, host, argv = new_job_id(), yard.host(), yard.world.programs["make"]
    host.make(job, b"{}")
    asked = Repeats(Patience(limit_s=SECONDS, wait=lambda _: False))
    asked.until_through(lambda: host.cancel(job))
    assert host.start(job, "0123456789abcdef", argv) == "cancelled"
    assert host.look({job: ""}, 0)[1][job].word == "cancelled"
    assert yard.starts(job) == 0


COURSES: Mapping[str, tuple[str, Callable[[Yard], object]]] = {
    "make": ("make", a_job_with_inputs),
    "make and start": ("make", a_job_without),
    "settle": ("settle", a_job_resumed),
    "start": ("start", a_job_with_inputs),
    "record": ("record", lambda yard: a_job_with_inputs(yard, "another")),
    "look": ("look", a_job_with_inputs),
    "left": ("left", a_job_with_inputs),
    "tail": ("tail", a_job_with_inputs),
    "cancel": ("cancel", a_job_cancelled),
    "cancel in time": ("cancel", a_job_cancelled_in_time),
}


@pytest.mark.parametrize("name", COURSES)
def test_a_far_shell_that_is_killed_inside_a_verb_costs_another_call(yard: Yard, name: str) -> None:
    """P2, P3, P9. Kills: silence of a tool that died, taken for its answer; half a latch."""
    step, course = COURSES[name]
    sweep(yard, step, lambda: course(yard))


def test_a_job_whose_removal_is_killed_is_gone_and_the_next_one_removes_the_rest(
    yard: Yard,
) -> None:
    """P3. Kills: half of an old job, which begins again without its latch, or never goes."""
    host, folder = yard.host(), yard.world.base
    for nth in itertools.count(1, EVERY):
        job = new_job_id()
        with yard.client() as client:
            client.submit(JobSpec(site=SITE, command="make"), job_id=job).wait(timeout=SECONDS)
        os.utime(yard.world.job_directory(job) / "control" / "exit", (0, 0))
        yard.arm("clean", 0, f"-f -e trace=unlinkat -e inject=unlinkat:signal=KILL:when={nth}")
        host.clean(1)
        assert not yard.world.job_directory(job).exists(), nth
        killed = yard.killed()
        host.clean(1)
        assert not list(folder.glob(".*")), nth
        if not killed:
            break
    assert nth > len(KEPT)
