"""The stock on XFS and btrfs, where files are cloned for real, beside what stands in elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.disks import MAY_MOUNT, a_disk, mounted

ROOT: Final = Path(__file__).parents[2]
#: Tests that run anywhere, and those that need such a disk.
ANYWHERE: Final = ("tests/contract/test_stock.py", "tests/unit/test_stock_clones.py")
THERE: Final = "tests/integration/cloning_disk.py"
KINDS: Final = ("xfs", "btrfs") if MAY_MOUNT else ("here",)  # an ordinary account cannot mount


@pytest.mark.parametrize("kind", KINDS)
def test_the_stock_keeps_its_word_on_a_disk_that_clones(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "mounted"
    place.mkdir(mode=0o700)
    before, tests = list[str](), list(ANYWHERE)
    if MAY_MOUNT:
        before = mounted(a_disk(kind, tmp_path / "disk"), place)
        tests.append(THERE)
    options = (
        "-q",
        "-k",
        "not memory",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        f"--basetemp={place}/pt",
    )
    done = subprocess.run(
        [*before, sys.executable, "-m", "pytest", *options, *tests],
        cwd=ROOT,
        env=os.environ | {"PYTEST_ADDOPTS": ""},
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 80
