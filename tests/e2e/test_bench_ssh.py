"""The benchmark of push mode runs from end to end, and tells all that it promises to tell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OF_BOTH_KINDS = {
    "noop_first_ms",
    "noop_warm_ms",
    "in_ratio_rsync",
    "out_ratio_rsync",
    "changed_1pct_bytes_ratio",
}
OF_NEITHER = {"ssh_true_new_ms", "ssh_true_warm_ms"}


def test_every_figure_of_the_push_benchmark_is_told() -> None:
    sizes = ["--mib", "4", "--rounds", "1", "--samples", "2", "--mbit", "400"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.ssh", "--json", *sizes],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    gated = {f"gated_{key}" for key in OF_BOTH_KINDS}
    slow = {"gated_400mbit_in_ratio_rsync", "gated_400mbit_out_ratio_rsync"}
    assert OF_BOTH_KINDS | OF_NEITHER | gated | slow <= figures.keys()
    assert figures["gated_changed_1pct_bytes_ratio"] > 0
    assert all(figures[key] > 0 for key in OF_NEITHER)
    table = [line for line in done.stdout.splitlines() if line.startswith("| in gated")]
    assert len(table) == 1
