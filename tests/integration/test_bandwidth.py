"""`max_mbit_s` of the user's and of the site's settings, each way, with real programs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.faults.test_bad_lines import TURN
from tests.faults.trio import Trio, a_trio, make_template

SIZE = 2 << 20
MBIT_S = 16
#: What may go at once after a pause is not waited for.
LEAST_S = SIZE * 8 / (MBIT_S * 1e6) - 0.25


@pytest.fixture
def trio(tmp_path: Path) -> Iterator[Trio]:
    make_template(tmp_path / "template")
    with a_trio(tmp_path / "template", tmp_path / "trio") as made:
        yield made


def limit(file: Path) -> None:
    head = "[broker]\n"
    text = file.read_text()
    assert head in text
    file.write_text(text.replace(head, f"{head}max_mbit_s = {MBIT_S}\n", 1))


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
