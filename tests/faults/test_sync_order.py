"""The broker answers after the disk has it, not before: seen from outside, call by call."""

from __future__ import annotations

import re

from tests.faults.trio import Trio

CALLS = "trace=write,writev,sendto,sendmsg,pwrite64,fsync,fdatasync"
#: An answer of ours that confirms something, as the kernel sees it go to a socket.
CONFIRMS = re.compile(
    r'(?:write|writev|sendto|sendmsg)\(\d+<(?:TCP|socket)[^>]*>.*"HTTP/1\.1 20[01] '
)
SYNCED = re.compile(r"(?:fsync|fdatasync)\(")


def test_no_write_is_confirmed_before_it_is_synced(still: Trio) -> None:
    """P1: between the last byte written to the broker's data and a 2xx there is always a sync.

    Kills: a commit without a sync, a sync after the answer, a chunk that is confirmed unsynced.
    """
    trace = still.home / "trace"
    still.start_broker("strace", "-D", "-f", "-qq", "-y", "-s", "24", "-o", str(trace), "-e", CALLS)
    still.start_agent()
    with still.connect() as client:
        job = client.submit(still.spec("one", source=still.some_input()))
        assert job.result(still.home / "got", timeout=60).state == "succeeded"
    still.agent.kill()
    assert still.broker.stop() == 0
    lines = [line.split(maxsplit=1)[1] for line in trace.read_text("utf-8", "replace").splitlines()]
    data = str(still.home / "broker")
    ours = [
        line for line in lines if CONFIRMS.search(line) or (data in line and "-shm>" not in line)
    ]
    confirmed = [n for n, line in enumerate(ours) if CONFIRMS.search(line)]
    assert len(confirmed) > 10
    assert len([line for line in ours if SYNCED.match(line)]) > 10
    for number in confirmed:
        earlier = [line for line in ours[:number] if not CONFIRMS.search(line)]
        assert not earlier or SYNCED.match(earlier[-1]), earlier[-3:]
