"""What a bare site runs detached meets faults: a job's wrapper bad disks, the end of a job death.

Both are started by `setsid`, which here is one of ours: it traces what it starts as a test says.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sekisho.adapters.hosts.bare import BareHost
from sekisho.adapters.job_notes import JobNotes
from sekisho.adapters.lane_bare import BareLane
from sekisho.adapters.patience import Patience
from sekisho.client.client import Client, new_job_id
from sekisho.client.spec import JobSpec
from sekisho.compose.bare import bare_site
from sekisho.compose.push import ssh_host
from sekisho.config.client import load_client
from tests.bare_site import SITE, BareWorld, bare_world
from tests.launching import calls_of_wrapper
from tests.sweep import FULL
from tests.waiting import until

pytestmark = pytest.mark.time_limit(600)
SECONDS = 120
QUICK = 20  #: so many times as fast is the clock of whoever waits
_SETSID = """\
#!/bin/sh
what=wrapper
[ "$5" = finish ] && what=finish
if mv {place}/armed.$what {place}/met 2>/dev/null; then
    eval "exec {true} strace -D -qq -o {place}/trace $(cat {place}/met) \\"\\$@\\""
fi
exec {true} "$@"
"""
_SLEEP = "#!/bin/sh\nexec {true} 0.05\n"
#: What is done to each file of a job by its wrapper, as it names the file, and by the program.
CALLS = calls_of_wrapper("control") | {"work/out.dat": ("openat", "write,copy_file_range")}
#: Of the shell that ends a job; what it starts is not traced.
DEATHS = ("clone,vfork", "openat", "exit_group")


@dataclass
class Yard:
    """A bare site, and its caller."""

    world: BareWorld
    place: Path

    def arm(self, what: str, trace: str) -> None:
        """Trace the next wrapper, or finish, so."""
        for name in ("met", "trace"):
            (self.place / name).unlink(missing_ok=True)
        (self.place / f"armed.{what}").write_text(trace)

    def traced(self) -> str:
        assert (self.place / "met").exists()
        return (self.place / "trace").read_text("utf-8", "replace")

    @contextmanager
    def client(self) -> Iterator[Client]:
        self.world.settle()
        files = load_client(self.world.config)
        site = files.settings.site[SITE]
        host = BareHost(ssh_host(site, files, SITE), str(self.world.base))
        patience = Patience(
            limit_s=SECONDS * QUICK,
            wait=lambda s: threading.Event().wait(min(s, 0.02)),
            monotonic=lambda: time.monotonic() * QUICK,
        )
        notes = JobNotes(self.place / "state")
        with Client(BareLane(bare_site(SITE, site), host, notes, patience)) as client:
            yield client

    def starts(self, job: str) -> int:
        file = self.place / "starts"
        return file.read_text().count(job) if file.exists() else 0


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in (("setsid", _SETSID), ("sleep", _SLEEP)):
        (tools / name).write_text(text.format(place=tmp_path, true=shutil.which(name)))
        (tools / name).chmod(0o755)
    path = f"{tools}:/usr/local/bin:/usr/bin:/bin"
    with bare_world(tmp_path, lines=[f"SetEnv PATH={path}"]) as world:
        started = f'echo "$CALC_DIR" >>"{tmp_path}/starts"'
        world.program("copy", f'{started}; echo printed && cat in.dat >"$CALC_DIR/out.dat"')
        world.program("deaf", f'{started}; trap "" TERM; echo up >up; exec /bin/sleep 600')
        for name, value in world.environ().items():
            monkeypatch.setenv(name, value)
        yield Yard(world, tmp_path)


def faults() -> Iterator[tuple[str, str, str, int]]:
    """Return file, call, error and number of what fails: of each call the first, or every one."""
    errors = itertools.cycle(("EIO", "ENOSPC"))
    for file, calls in CALLS.items():
        for call in calls:
            for error in ("EIO", "ENOSPC") if FULL else (next(errors),):
                yield from ((file, call, error, nth) for nth in range(1, 6 if FULL else 2))


def test_a_disk_that_fails_below_a_bare_sites_wrapper_costs_no_second_start_and_no_false_success(
    yard: Yard,
) -> None:
    """P2 to P4. Kills: a start before its latch is on the disk; an end that nobody has written."""
    met: Counter[tuple[str, str]] = Counter()
    ends: Counter[str] = Counter()
    for file, call, error, nth in faults():
        given, job = os.urandom(20_000), new_job_id()
        (yard.place / "in.dat").write_bytes(given)
        names = (f"../{file}", str(yard.world.job_directory(job) / file))
        paths = " ".join(f"-P '{name}'" for name in names)
        yard.arm("wrapper", f"-f {paths} -e trace={call} -e inject={call}:error={error}:when={nth}")
        spec = JobSpec(site=SITE, command="copy", inputs=[yard.place / "in.dat"])
        with yard.client() as client:
            state = client.submit(spec, job_id=job).wait(timeout=SECONDS).state
            where = (file, call, error, nth, state)
            assert state in ("succeeded", "failed", "lost"), where
            if state == "succeeded":
                client.job(job).result(yard.place / job)
                got = {f.name: f.read_bytes() for f in (yard.place / job).iterdir()}
                assert got == {"out.dat": given, "remote_program_exec.log": b"printed\n"}, where
        assert yard.starts(job) == 1 or (state == "lost" and not yard.starts(job)), where
        met[file, call] += yard.traced().count("INJECTED")
        ends[state] += 1
    assert [(file, call) for file in CALLS for call in CALLS[file] if not met[file, call]] == []
    assert ends["succeeded"] > 3
    assert ends["failed"] > 1


def test_a_job_is_ended_whatever_kills_the_one_who_ends_it(yard: Yard) -> None:
    """P9. Kills: a job that hears no asking, and runs on because nobody is left to make it end."""

    def cancelled(trace: str) -> str:
        yard.arm("finish", trace)
        job = new_job_id()
        with yard.client() as client:
            held = client.submit(JobSpec(site=SITE, command="deaf"), job_id=job)
            until((yard.world.job_directory(job) / "work" / "up").exists)
            held.cancel()
            until(lambda: held.refresh().state not in ("running", "queued"), trace)
            assert held.refresh().state == "cancelled", trace
        assert yard.starts(job) == 1
        return yard.traced()

    seen = cancelled(f"-e trace={','.join(DEATHS)}")
    done = Counter(re.findall(r"^(\w+)\(", seen, re.MULTILINE))
    moments = [
        f"-e trace={calls} -e inject={calls}:signal=KILL:when={nth + 1}"
        for calls in DEATHS
        for nth in range(sum(done[call] for call in calls.split(",")))
    ]
    assert len(moments) > 20
    died = ["killed by SIGKILL" in cancelled(trace) for trace in moments[:: 1 if FULL else 12]]
    assert sum(died) > len(died) / 2
