"""One user's job in a process of its own.

Prints how long the job took, how long until its inputs were at the broker, and this process's peak
memory and processor time, as JSON. The clocks start when everything is loaded, as a copy's does.
Nothing of the other parts of the benchmark is loaded: it would count as the client's memory.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

from sekisho.adapters.logging_setup import set_up_logging
from sekisho.api import JobSpec, connect


def main(settings: str, site: str, command: str, into: str, source: str | None = None) -> None:
    """Run one job and tell of it."""
    set_up_logging("error")
    inputs = {} if source is None else {"in": Path(source)}
    with connect(settings) as client:
        begun, worked = time.perf_counter(), time.process_time()
        job = client.submit(JobSpec(site=site, command=command, inputs=inputs, outputs=["out/**"]))
        sent = time.perf_counter()
        job.result(into)
        ended = time.perf_counter()
    told = {"sent_s": sent - begun, "total_s": ended - begun, "rss_mb": _peak_mb()}
    print(json.dumps(told | {"cpu_s": time.process_time() - worked}))


def _peak_mb() -> float:
    """Return this program's own peak; `getrusage` counts its parent's before the exec, too."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text("ascii"))
    return int(found[1]) / 1024 if found else 0.0


if __name__ == "__main__":
    main(*sys.argv[1:])
