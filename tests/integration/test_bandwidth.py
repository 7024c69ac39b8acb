"""`max_mbit_s` of the user's and of the site's settings, and what a user sees meanwhile."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.faults.test_bad_lines import TURN
from tests.faults.trio import SITE, Trio, a_trio, make_template
from tests.forked import AS_TYPED

SIZE = 2 << 20
MBIT_S = 16
#: What may go at once after a pause is not waited for.
LEAST_S = SIZE * 8 / (MBIT_S * 1e6) - 0.25


@pytest.fixture
def trio(tmp_path: Path) -> Iterator[Trio]:
    make_template(tmp_path / "template")
    with a_trio(tmp_path / "template", tmp_path / "trio") as made:
        yield made


def limit(file: Path, mbit_s: int = MBIT_S) -> None:
    head = "[broker]\n"
    text = file.read_text()
    assert head in text
    file.write_text(text.replace(head, f"{head}max_mbit_s = {mbit_s}\n", 1))


def moment(trio: Trio, job: str, state: str) -> datetime:
    """Return when the broker changed the job's state."""
    line = trio.broker.event("job_changed", job=job, state=state)
    return datetime.fromisoformat(line["timestamp"])


def test_no_party_uses_more_of_a_line_than_its_settings_allow(trio: Trio) -> None:
    """Kills: a setting that is read and never heard of again, of either party, in either way."""
    given = trio.some_input(SIZE)
    (trio.home / "work.sh").write_text(TURN)
    limit(trio.client_config)
    limit(trio.site / "agent.toml")
    trio.start_broker()
    trio.start_agent()
    took: dict[str, float] = {}
    with trio.connect() as client:
        began = time.monotonic()
        job = client.submit(trio.spec("one", source=given))
        took["in, client"] = time.monotonic() - began
        job.wait(timeout=120)
        began = time.monotonic()
        assert job.result(trio.home / "got", timeout=120).exit_code == 0
        took["out, client"] = time.monotonic() - began
    held = moment(trio, job.id, "succeeded") - moment(trio, job.id, "accepted")
    took["agent, each way"] = held.total_seconds() / 2  # it tells of a short job all at once
    assert min(took.values()) > LEAST_S, took
    assert (trio.home / "got/out/turned").stat().st_size == SIZE


def told_at_a_terminal(argv: list[str], environ: dict[str, str]) -> str:
    """Run a program whose stderr is a terminal; return what was shown there."""
    leader, follower = pty.openpty()
    with subprocess.Popen(argv, env=environ, stdout=subprocess.DEVNULL, stderr=follower) as process:
        os.close(follower)
        shown = b""
        try:
            while piece := os.read(leader, 1 << 16):
                shown += piece
        except OSError:  # nobody writes there any more
            pass
        finally:
            os.close(leader)
    assert process.returncode == 0, repr(shown[-3000:])
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())


def test_a_terminal_shows_how_far_how_fast_and_how_long_still(trio: Trio) -> None:
    """Kills: a bar without a pace, or with one in another unit than the sizes beside it."""
    given = trio.some_input(24 << 20)
    (trio.home / "work.sh").write_text(TURN)
    limit(trio.client_config, 5 * MBIT_S)
    trio.start_broker()
    trio.start_agent()
    words = (
        *("--config", trio.client_config, "run", SITE, "work", "-p", "key=one"),
        *("-i", f"in/given={given}", "-o", "out/**", "--into", trio.home / "got"),
    )
    environ = trio.environ | {"TERM": "xterm", "COLUMNS": "100"}
    shown = told_at_a_terminal([*AS_TYPED, *map(str, words)], environ)
    for way in ("sending", "fetching"):
        line = rf"{way} \d+\.\d of 24\.0 MiB .* \d+\.\d MiB/s +0:0\d:\d\d"
        assert re.search(line, shown), (way, shown)
