"""The two main benchmarks run from end to end, and tell all that they promise to tell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.time_limit(700)
ROOT = Path(__file__).resolve().parents[2]
LATENCY = {
    "api_p50_ms",
    "api_p99_ms",
    "api_proxy_p50_ms",
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
PUSH = {
    "noop_first_ms",
    "noop_warm_ms",
    "in_ratio_rsync",
    "out_ratio_rsync",
    "changed_1pct_bytes_ratio",
}
SSH = {"ssh_true_new_ms", "ssh_true_warm_ms"}
SLOW = {"gated_400mbit_in_ratio_rsync", "gated_400mbit_out_ratio_rsync"}


def measured(name: str, *words: str) -> tuple[list[str], dict[str, float]]:
    """Return the table that a benchmark prints, and its figures."""
    done = subprocess.run(
        [sys.executable, "-m", f"bench.{name}", "--json", *words],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *table, last = done.stdout.splitlines()
    return table, json.loads(last)


def test_every_figure_of_the_latency_benchmark_is_told() -> None:
    table, figures = measured("latency", "--quick", "--jobs", "2", "--agents", "3")
    assert figures.keys() == LATENCY
    assert all(figures[key] > 0 for key in LATENCY - {"idle_cores"})
    assert figures["agents"] == 3
    assert figures["asgi_rtt_ms"] < figures["api_p50_ms"]
    assert sum("Python API" in line for line in table) == 2


def test_every_figure_of_the_push_benchmark_is_told() -> None:
    sizes = ("--mib", "4", "--rounds", "1", "--samples", "2", "--mbit", "400")
    table, figures = measured("ssh", *sizes)
    assert PUSH | {f"gated_{key}" for key in PUSH} | SSH | SLOW <= figures.keys()
    assert figures["gated_changed_1pct_bytes_ratio"] > 0
    assert all(figures[key] > 0 for key in SSH)
    assert sum(line.startswith("| in gated") for line in table) == 1
