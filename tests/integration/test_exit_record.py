"""What a power cut can leave of an exit record: the true one, or none. On records of the wrapper.

The record is written over a synced one of the same length, named, and then synced: any bytes of the
one and any of the other may be on the disk afterwards, under the old name or the new one.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sekisho.adapters.schedulers.record import exit_in
from sekisho.domain.run import Exit
from sekisho.site.scheduler import Exited, Gone
from tests.launching import SHELL, a_launch, a_scheduler, over

pytestmark = pytest.mark.anyio
SECTOR_BYTES = 512
#: A reader that a torn record deceives.
LENIENT = re.compile(r"exit\s+(\S+)\s+(\d+)\s+(\d+)\s+(\d+)")


async def records(folder: Path, code: int) -> tuple[str, Exit, bytes, bytes]:
    """Return a job's token and end, and what lay in the record's place before and after."""
    spec = a_launch(folder, *SHELL, f'cat "$0"/exit.new >before; exit {code}')
    spec = replace(spec, argv=(*spec.argv, spec.control_dir), env={"PATH": "/usr/bin:/bin"})
    async with a_scheduler() as scheduler:
        seen = await over(scheduler, await scheduler.submit(spec))
    assert isinstance(seen, Exited)
    old, new = read(spec.work_dir, "before"), read(spec.control_dir, "exit")
    return spec.token, seen.exit, old, new


def read(folder: str, name: str) -> bytes:
    return Path(folder, name).read_bytes()


def leave(control_dir: str, left: bytes) -> None:
    """Put ``left`` where an exit record is expected, beside the latch of who was to write it."""
    Path(control_dir, "latch").mkdir(exist_ok=True)
    Path(control_dir, "exit").write_bytes(left)


def mixtures(old: bytes, new: bytes) -> Iterator[bytes]:
    """Yield what torn writes leave: a piece of one in the other, and bytes of both at random."""
    for first in range(len(new) + 1):
        for last in range(first, len(new) + 1):
            yield new[:first] + old[first:last] + new[last:]
            yield old[:first] + new[first:last] + old[last:]
    dice = random.Random(1)
    for _ in range(20_000):
        yield bytes(map(dice.choice, zip(old, new, strict=True)))


@pytest.mark.parametrize("code", [0, 7, 137])
async def test_a_torn_exit_record_is_the_true_one_or_none(tmp_path: Path, code: int) -> None:
    """Kills: a record without an end mark; one that is read leniently; one of another length."""
    token, true, old, new = await records(tmp_path, code)
    assert len(old) == len(new) < SECTOR_BYTES  # a disk writes it at once, if it keeps its word
    assert exit_in(new.decode(), token) == true
    assert true.code == code
    deceived = {
        found[0] for torn in mixtures(old, new) if (found := LENIENT.findall(torn.decode()))
    }
    assert len(deceived) > 1  # the control: there is something to be deceived by
    assert {exit_in(torn.decode(), token) for torn in mixtures(old, new)} == {None, true}


async def test_a_name_without_its_record_is_an_unknown_fate(tmp_path: Path) -> None:
    """The name came to the disk before the bytes: what lies there is the room that was taken."""
    _, _, old, _ = await records(tmp_path, 0)
    spec = a_launch(tmp_path, "/bin/true")
    for left in (old, bytes(len(old)), b""):
        leave(spec.control_dir, left)
        async with a_scheduler() as scheduler:
            assert await over(scheduler, await scheduler.submit(spec)) == Gone()
