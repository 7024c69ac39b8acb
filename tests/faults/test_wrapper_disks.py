"""The disk below a job's wrapper, and below its program, fails at each single write.

What fails is a system call of the wrapper, of a tool that it calls or of the program, on a file of
the job: its nth of a kind, by strace. The end that is told is true: a success has its whole output,
what did not start starts later, and nothing starts twice.
"""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

import pytest

from sekisho.site.scheduler import Exited, Gone, NotStarted
from tests.launching import SHELL, a_launch, a_scheduler, calls_of_wrapper, over

pytestmark = [pytest.mark.anyio, pytest.mark.time_limit(600)]
STRACE = shutil.which("strace") or "strace"
#: What is done to each file of a job, from its work directory.
CALLS = calls_of_wrapper("{control}") | {"{work}/out": ("openat", "write")}
PROGRAM = (
    'echo started >>witness; o=$CALC_DIR/out; echo printed && cat in >"$o" && echo "$0" >>"$o"'
)


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
async def test_a_disk_that_fails_below_a_wrapper_gives_no_success_and_no_second_start(
    tmp_path: Path, error: str
) -> None:
    """P3, P4. Kills: a start before its latch is on the disk; an end that nobody has written."""
    told: list[type[object]] = []
    for file, calls in CALLS.items():
        for call in calls:
            for nth in itertools.count(1):
                place = tmp_path / f"{len(told)}.{call}{nth}.{file[-4:].strip('/')}"
                place.mkdir()
                failed, seen = await a_job(place, file, f"{call}:error={error}:when={nth}")
                if not failed:
                    break
                told.append(seen)
            assert nth > 1, (file, call)
    assert {*told} == {Exited, Gone, NotStarted}


async def a_job(place: Path, file: str, fault: str) -> tuple[int, type[object]]:
    """Return how many calls have failed, and which end was told of a job."""
    spec = a_launch(place, *SHELL, PROGRAM, "end")
    work, control, trace = Path(spec.work_dir), Path(spec.control_dir), place / "trace"
    given = os.urandom(20_000)
    (work / "in").write_bytes(given)
    what = [
        "-P",
        file.format(control=control, work=work),
        "-e",
        f"trace={fault.partition(':')[0]}",
        "-e",
        f"inject={fault}",
    ]
    strace = (STRACE, "-f", "-qq", "-o", str(trace), *what, "/bin/sh")

    def starts() -> int:
        return len((work / "witness").read_text().split()) if (work / "witness").exists() else 0

    async with a_scheduler(shell=strace) as scheduler:
        seen = await over(scheduler, await scheduler.submit(spec))
    first = starts()
    if isinstance(seen, Exited) and seen.exit.code == 0:
        assert (work / "out").read_bytes() == given + b"end\n", (file, fault)
        assert (control / "stdout").read_text() == "printed\n", (file, fault)
        assert first == 1, (file, fault)
    assert first == 0 or not isinstance(seen, NotStarted), (file, fault)
    async with a_scheduler() as scheduler:
        again = await over(scheduler, await scheduler.submit(spec))
    if isinstance(seen, NotStarted):
        assert isinstance(again, Exited), (file, fault)
        assert again.exit.code == 0, (file, fault)
        assert starts() == 1, (file, fault)
    else:
        assert isinstance(seen, Exited | Gone), (file, fault)
        assert starts() == first <= 1, (file, fault)
        assert again == seen, (file, fault)
    return trace.read_text("utf-8", "replace").count("INJECTED"), type(seen)
