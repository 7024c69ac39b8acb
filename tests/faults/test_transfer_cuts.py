"""A wire that is cut at every tenth of what each party sends and fetches."""

from __future__ import annotations

import os

import pytest

from tests.cutter import cutter
from tests.faults.test_bad_lines import TURN
from tests.faults.trio import Trio
from tests.proxy import HOST

MIB = 1 << 20
SIZE = 4 * MIB
CUTS = 10
#: The longest that so short a transfer comes to.
PART = 2 * MIB
#: Requests, polls and the lists of files.
TALK = MIB // 2


@pytest.mark.time_limit(600)
def test_a_cut_anywhere_costs_a_part_at_most(still: Trio) -> None:
    """Inputs go up and down the wire, then outputs: each way carries the size of a file twice.

    Kills: a transfer that begins anew, or ends, when the line breaks at some place.
    """
    given = still.home / "given"
    (still.home / "work.sh").write_text(TURN)
    still.start_broker()
    with cutter(still.proxy.upstream, [], []) as wire:
        still.point_at(f"http://{HOST}:{wire.port}")
        still.start_agent()
        with still.connect() as client:
            for number in range(CUTS):
                data = os.urandom(SIZE)
                given.write_bytes(data)
                up, down, at = wire.up, wire.down, SIZE * number // CUTS
                wire.up_cuts += [up + at, up + SIZE + at]
                wire.down_cuts += [down + at, down + SIZE + at]
                into = still.home / f"got-{number}"
                job = client.submit(still.spec(f"cut-{number}", source=given))
                assert job.result(into, timeout=120).state == "succeeded"
                turned = data.translate(bytes([*range(1, 256), 0]))
                assert (into / "out/turned").read_bytes() == turned
                assert 2 * SIZE < wire.up - up < 2 * SIZE + 2 * PART + TALK, number
                assert 2 * SIZE < wire.down - down < 2 * SIZE + 2 * MIB + TALK, number
        still.agent.kill()  # its poll would keep the wire
    assert wire.cuts == 4 * CUTS
