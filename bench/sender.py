"""One user's job in a process of its own: `python -m bench.sender SETTINGS COMMAND INTO [INPUT]`.

Prints how long the job took, how long until its inputs were at the broker, and this process's peak
memory, as JSON. The clock starts when everything is loaded, as a copy's does.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from bench.world import SITE
from sekisho.adapters.logging_setup import set_up_logging
from sekisho.api import JobSpec, connect


def main(settings: str, command: str, into: str, source: str | None = None) -> None:
    """Run one job and tell of it."""
    set_up_logging("error")
    inputs = {} if source is None else {"in": Path(source)}
    with connect(settings) as client:
        begun = time.perf_counter()
        job = client.submit(JobSpec(site=SITE, command=command, inputs=inputs, outputs=["out/**"]))
        sent = time.perf_counter()
        job.result(into)
        ended = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"sent_s": sent - begun, "total_s": ended - begun, "rss_mb": peak / 1024}))


if __name__ == "__main__":
    main(*sys.argv[1:])
