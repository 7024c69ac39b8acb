"""A part that was cut off at a gate: what of it had arrived is not sent again."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from sekisho.adapters.lane_gate import GateLane, Session
from sekisho.adapters.patience import Patience
from sekisho.client.client import Client
from sekisho.client.spec import JobSpec
from tests.gated import SITE, GatedSite, gated_site, local_gate

MIB = 1 << 20
CONTENT = os.urandom(7 * MIB)  # one part
CUT_AT = 5 * MIB
#: A chunk that was under way, and what is spoken beside the content.
LOST = 3 * MIB // 2


class Narrow(io.RawIOBase):
    """One direction of a session: counts what passes, and breaks before more than ``left``."""

    def __init__(self, stream: IO[bytes], left: int) -> None:
        self.passed = 0
        self._stream = stream
        self._left = left

    def _pass(self, size: int) -> int:
        size = min(size, self._left - self.passed)
        self.passed += size
        return size

    def write(self, data: bytes) -> int:  # type: ignore[override]
        taken = self._pass(len(data))
        self._stream.write(data[:taken])
        if taken < len(data):
            self._stream.close()
            raise BrokenPipeError
        return taken

    def read(self, size: int = -1) -> bytes:
        return self._stream.read(self._pass(size))

    def flush(self) -> None:
        if not self._stream.closed:
            self._stream.flush()

    def close(self) -> None:
        self._stream.close()


class Line:
    """Opens sessions; the first one breaks, in one direction."""

    def __init__(self, site: GatedSite, way: str) -> None:
        self.ends: list[Narrow] = []
        self._site, self._way = site, way

    def open(self) -> Session:
        session = local_gate(self._site.home)
        end = session.stdin if self._way == "in" else session.stdout
        self.ends.append(Narrow(end, MIB << 10 if self.ends else CUT_AT))
        if self._way == "in":
            session.stdin = self.ends[-1]  # type: ignore[assignment]
        else:
            session.stdout = self.ends[-1]  # type: ignore[assignment]
        return session


@pytest.fixture
def site(tmp_path: Path) -> Iterator[GatedSite]:
    made = gated_site(tmp_path)
    made.go.touch()
    yield made
    made.kill_carrier()


@pytest.mark.parametrize("way", ["in", "out"])
def test_after_a_cut_only_what_had_not_arrived_goes_again(
    site: GatedSite, tmp_path: Path, way: str
) -> None:
    """Killed by: taking a part, or a group of what comes back, as a whole or not at all."""
    (tmp_path / "in.txt").write_bytes(CONTENT)
    line = Line(site, way)
    patience = Patience(limit_s=120, wait=lambda s: threading.Event().wait(min(s, 0.05)))
    client = Client(GateLane(SITE, line.open, patience))
    try:
        spec = JobSpec(site=SITE, command="slow", inputs=[tmp_path / "in.txt"], outputs=["out.txt"])
        client.submit(spec).result(tmp_path / "r")
    finally:
        client.close()
    assert len(line.ends) > 1
    assert (tmp_path / "r" / "out.txt").read_bytes() == CONTENT
    assert CUT_AT < sum(end.passed for end in line.ends) < len(CONTENT) + LOST
