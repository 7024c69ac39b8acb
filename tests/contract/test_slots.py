"""Slots: one count for all processes of a site, and what a process held ends with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from sekisho.adapters.slots_directory import DirectorySlots
from sekisho.adapters.slots_memory import MemorySlots
from sekisho.site.slots import IN_HAND, Slots

Maker = Callable[[], Slots]
COMMAND = "solve"


@pytest.fixture(params=["memory", "directory"])
def process(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Maker]:
    """Give what makes the slots of one more process."""
    table: set[tuple[str, str, int]] = set()
    with ExitStack() as stack:

        def directory() -> Slots:
            return stack.enter_context(closing(DirectorySlots(tmp_path / "slots")))

        yield (lambda: MemorySlots(table)) if request.param == "memory" else directory


def test_no_more_than_the_limit_are_taken_by_all_together(process: Maker) -> None:
    one, two = process(), process()
    taken = [slots.take(IN_HAND, f"job{n}", 3) for n, slots in enumerate([one, two, one, two, one])]
    assert taken == [True, True, True, False, False]
    assert (one.others(IN_HAND), two.others(IN_HAND)) == (1, 2)


def test_what_was_left_is_free_for_anybody(process: Maker) -> None:
    one, two = process(), process()
    assert one.take(IN_HAND, "a", 1)
    assert not two.take(IN_HAND, "b", 1)
    one.leave(IN_HAND, "a")
    assert two.take(IN_HAND, "b", 1)
    assert not one.take(IN_HAND, "a", 1)


def test_a_job_has_one_slot_however_often_it_takes_or_leaves_it(process: Maker) -> None:
    slots = process()
    assert [slots.take(IN_HAND, "a", 1) for _ in range(3)] == [True, True, True]
    for _ in range(3):
        slots.leave(IN_HAND, "a")
    assert process().others(IN_HAND) == 0


def test_kinds_are_counted_apart(process: Maker) -> None:
    slots = process()
    assert slots.take(IN_HAND, "a", 1)
    assert slots.take(COMMAND, "a", 1)
    slots.leave(COMMAND, "a")
    other = process()
    assert other.take(COMMAND, "b", 1)
    assert not other.take(IN_HAND, "b", 1)


def test_what_is_in_hand_already_counts_beyond_the_limit(process: Maker) -> None:
    one, two = process(), process()
    for n in range(5):
        assert one.take(IN_HAND, f"job{n}")
    assert not two.take(IN_HAND, "other", 5)
    one.leave(IN_HAND, "job0")
    assert two.take(IN_HAND, "other", 5)
    assert two.others(IN_HAND) == 4


def test_many_who_take_at_once_get_as_many_as_there_are(process: Maker) -> None:
    """Killed by: counting first and taking afterwards."""
    each = [process() for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        took = list(pool.map(lambda n: each[n % 4].take(IN_HAND, f"job{n}", 7), range(40)))
    assert sum(took) == 7


HOLDER = """
import sys
from pathlib import Path
from sekisho.adapters.slots_directory import DirectorySlots
slots = DirectorySlots(Path(sys.argv[1]))
print([slots.take("", str(n), 2) for n in range(3)], flush=True)
sys.stdin.read()
"""


def test_a_killed_process_holds_nothing_and_its_children_neither(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", HOLDER, str(tmp_path / "slots")]
    with (
        closing(DirectorySlots(tmp_path / "slots")) as slots,
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder,
    ):
        assert holder.stdout is not None
        assert holder.stdout.readline() == "[True, True, False]\n"
        assert slots.others(IN_HAND) == 2
        assert not slots.take(IN_HAND, "mine", 2)
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        assert slots.others(IN_HAND) == 0
        assert slots.take(IN_HAND, "mine", 1)


def test_a_program_that_was_started_meanwhile_keeps_nothing(tmp_path: Path) -> None:
    """A command that runs on when its agent was killed must not keep the agent's slots."""
    slots = DirectorySlots(tmp_path / "slots")
    assert slots.take(IN_HAND, "mine", 1)
    with subprocess.Popen(["sleep", "600"], close_fds=False) as running:
        slots.close()
        with closing(DirectorySlots(tmp_path / "slots")) as other:
            assert other.take(IN_HAND, "theirs", 1)
        running.kill()
