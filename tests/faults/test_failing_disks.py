"""Disks that fail under a transfer (EIO), at each of the three parties: told, and made good.

What fails is a system call of a real process, by strace. A write that fails is tried anew by who
owes the file; a sync that fails ends the process, since nobody knows what the disk holds then.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sekisho.domain.errors import SyncFailed, Unavailable
from tests.faults.program import call
from tests.faults.trio import Trio

SECONDS = 120


def failing(call_: str, when: str, trace: Path) -> tuple[str, ...]:
    """Return what a program's command line is an argument of, to have such calls fail with EIO."""
    calls = ("-e", f"trace={call_}", "-e", f"inject={call_}:error=EIO:when={when}")
    return ("strace", "-D", "-f", "-qq", "--seccomp-bpf", "-o", str(trace), *calls)


def injected(trace: Path) -> int:
    return trace.read_text("utf-8").count("(INJECTED)")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.mark.parametrize("nth", [1, 2])
def test_a_result_that_cannot_be_written_is_told_and_fetched_when_it_can(
    trio: Trio, nth: int
) -> None:
    """Kills: a file under its name that holds what was never written."""
    given, trace = trio.some_input(), trio.home / "trace"
    with trio.connect() as client:
        job = client.submit(trio.spec("one", source=given))
        job.wait(timeout=SECONDS)
    fetch = ("--config", trio.client_config, "fetch", job.id, "--into", trio.home / "got")
    before = failing("pwrite64", str(nth), trace)
    _, said = call(trio.environ, *fetch, status=Unavailable.exit_status, before=before)
    assert "error[fetch.io]" in said
    assert injected(trace) == 1
    assert [name for name in contents(trio.home / "got") if ".part/" not in name] == []
    call(trio.environ, *fetch)
    assert contents(trio.home / "got")["out/in/given"] == given.read_bytes()


@pytest.mark.parametrize("when", ["1", "2", "1..3"])
def test_inputs_that_cannot_be_written_at_the_site_are_fetched_again(
    still: Trio, when: str
) -> None:
    """Kills: a job that is failed for a disk's hiccup, or started with half of its inputs."""
    given, trace = still.some_input(), still.home / "trace"
    still.start_broker()
    still.start_agent(*failing("pwrite64", when, trace))
    with still.connect() as client:
        job = client.submit(still.spec("one", source=given))
        still.agent.event("run_waits", job=job.id, code="fetch.io", seconds=SECONDS)
        assert job.result(still.home / "got", timeout=SECONDS).state == "succeeded"
    assert injected(trace) >= 1
    assert still.starts() == {"one": 1}
    assert contents(still.home / "got")["out/in/given"] == given.read_bytes()


@pytest.mark.parametrize("nth", [1, 4, 8])
def test_a_broker_whose_disk_fails_at_a_sync_ends_and_its_successor_goes_on(
    still: Trio, nth: int
) -> None:
    """P1, P4: the one submission outlives it; nothing that was confirmed is gone."""
    given, trace = still.some_input(), still.home / "trace"
    still.start_broker(*failing("fsync", f"{nth}", trace))
    still.start_agent()
    with still.connect() as client, ThreadPoolExecutor(1) as beside:
        submitted = beside.submit(client.submit, still.spec("one", source=given))
        assert still.broker.ended(SECONDS) == SyncFailed.exit_status
        still.start_broker()
        job = submitted.result(SECONDS)
        assert job.result(still.home / "got", timeout=SECONDS).state == "succeeded"
    assert injected(trace) == 1
    assert still.starts() == {"one": 1}
    assert contents(still.home / "got")["out/in/given"] == given.read_bytes()
