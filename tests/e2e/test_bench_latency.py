"""The benchmark of latency runs from end to end, and tells all that it promises to tell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIGURES = {
    "api_p50_ms",
    "api_p99_ms",
    "cli_p50_ms",
    "asgi_rtt_ms",
    "spawn_ms",
    "jobs_per_s_1",
    "jobs_per_s_8",
    "jobs_per_s_64",
    "agents",
    "idle_rss_mb",
    "idle_cores",
    "pickup_p99_ms",
}


def test_every_figure_of_the_latency_benchmark_is_told() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "bench.latency",
            "--json",
            "--quick",
            "--jobs",
            "2",
            "--agents",
            "3",
        ],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *table, last = done.stdout.splitlines()
    figures = json.loads(last)
    assert figures.keys() == FIGURES
    assert all(figures[key] > 0 for key in FIGURES - {"idle_cores"})
    assert figures["agents"] == 3
    assert figures["asgi_rtt_ms"] < figures["api_p50_ms"]
    assert sum("Python API" in line for line in table) == 2
